"""Names of the files and folders of a sweep; those of a run are in phalanx/run_folder/names.py.

SWEEP/
    sweep.json  trials.csv  journal.jsonl  report.html
    output/RUN.txt
    workers/HOST-PID-ID/
    .turn
    RUN/    one for each trial
"""

SWEEP = "sweep.json"  # what became of each trial
TRIALS = "trials.csv"  # the same as a table
JOURNAL = "journal.jsonl"  # Optuna's, where no other storage is typed
OUTPUT = "output"  # what the processes of each trial print
WORKERS = "workers"  # a folder for each process that works on the sweep, with a lease as in a run folder
LOCK_FILE = ".turn"  # locked by whoever takes or ends a trial
