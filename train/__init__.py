"""The trainer: what runs inside every rank."""

if __name__ == "train":  # from a checkout on the path, where it would be a second copy of everything
    raise ModuleNotFoundError(
        "train is phalanx.train now. What users import is in phalanx: from phalanx import Task", name="train"
    )
