"""Where and how often ranks run. Imports no torch: it works on a login node and answers in a fraction of a second."""

if __name__ == "launch":  # from a checkout on the path, where it would be a second copy of everything
    raise ModuleNotFoundError(
        "launch is phalanx.launch now. What users import is in phalanx: from phalanx import Task", name="launch"
    )
