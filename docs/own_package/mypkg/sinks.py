import csv

from phalanx import Sink


class Table(Sink):
    """A CSV file of the evaluations, in the run's folder."""

    def __init__(self, file="evaluations.csv"):
        self.file = file

    def open(self, folder, config, step):
        self.rows = (folder / self.file).open("a" if step else "w", newline="")
        self.lr = config["optim"]["lr"]

    def write(self, line):
        if line["split"] != "train":
            csv.writer(self.rows).writerow([line["step"], self.lr, line["loss"]])

    def event(self, event):
        pass

    def close(self, summary):
        self.rows.close()
