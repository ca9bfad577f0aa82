"""Mistakes in a beginner's own model, data and task."""

from tests.runs.mistakes.project import Mistake, bug, wrong

INIT = "super().__init__()\n"
LAYERS = "self.layers = nn.Sequential(nn.Linear(4, width), nn.ReLU(), nn.Linear(width, 3))"
FORWARD = "return self.layers(x)"
INPUTS = "torch.randn(points, 4, generator=draw)"
LABELS = "torch.randint(0, 3, (points,), generator=draw)"
ITEM = "return self.x[index], self.y[index]"
LOSS = 'loss = nn.functional.cross_entropy(logits, y, reduction="sum")'
RETURN = 'return {"loss": Ratio(loss, len(y)), "accuracy": Ratio(hits, len(y))}'
IMPORTS = "from phalanx import Ratio, Task"
ON_ONE_RANK = 'if __import__("os").environ["RANK"] == "1"'

MODEL = [
    bug("layers that do not fit", {FORWARD: "return self.layers(x.T)  # here"}, "batch (8, 4) float32 … shapes"),
    bug("layers that do not fit, on two ranks", {FORWARD: "return self.layers(x.T)  # here"}, "on rank 0", ranks=2),
    bug("a view that does not fit", {FORWARD: "return self.layers(x.view(-1, 5))  # here"}, "is invalid for input"),
    bug("a forward that returns nothing", {FORWARD: "self.layers(x)", LOSS: f"{LOSS}  # here"}, "not NoneType"),
    bug("a forward without its argument", {"def forward(self, x)": "def forward(self)"}, "1 positional argument"),
    bug("no super().__init__()", {INIT: "", LAYERS: f"{LAYERS}  # here"}, "while model was built … cannot assign"),
    bug(
        "a model that raises when built", {INIT: f"{INIT}        width.x  # here\n"}, "while model was built … no attr"
    ),
    bug("a device that is written down", {FORWARD: 'return self.layers(x.to("cuda"))  # here'}, "mine/parts.py"),
    bug("a model of half precision", {FORWARD: "self.half()\n        return self.layers(x)  # here"}, "same dtype"),
    bug("a syntax error", {"class Net(nn.Module):": "class Net(nn.Module)  # here"}, "SyntaxError: expected ':'"),
    bug("a name that phalanx has not", {IMPORTS: "from phalanx import Ratios, Task  # here"}, "cannot import name"),
    bug(
        "an import that raises",
        {IMPORTS: f"{IMPORTS}\n\n1 / 0  # here"},
        "imported, for model._target_=mine.parts.Net, at … ZeroDivisionError",
    ),
    wrong("an import of a typo", {IMPORTS: f"{IMPORTS}\nimport trch  # here"}, "imports trch, which is not installed"),
    wrong("no parameter", {LAYERS: "self.w = 1", FORWARD: "return x"}, "no parameter to train … nn.ModuleList"),
    wrong(
        "layers in a plain list",
        {LAYERS: "self.layers = [nn.Linear(4, 3)]", FORWARD: "return self.layers[0](x)"},
        "plain list or dict are not found … nn.ModuleList",
    ),
    wrong("a layer for nothing", {INIT: f"{INIT}        self.more = nn.Linear(2, 2)\n"}, "more.weight, more.bias"),
    wrong("an answer that is detached", {FORWARD: "return self.layers(x).detach()"}, "loss depends on no weight"),
]
DATA = [
    bug(
        "a sample that raises", {ITEM: "return self.x[index], self.y[index + 60]  # here"}, "with the data set's sample"
    ),
    bug(
        "a sample that raises on two ranks",
        {ITEM: "return self.x[index], self.y[index + 60]  # here"},
        "out of bounds",
        ranks=2,
    ),
    bug(
        "a sample that raises in a worker",
        {ITEM: "return self.x[index], self.y[index + 60]  # here"},
        "out of bounds",
        "data.workers=1",
    ),
    bug(
        "a sample that raises later on",
        {ITEM: "return self.x[index], self.y[99 if index % 40 == 39 else index]  # here"},
        "in step 2, data.train's sample 39",
        begins=True,
    ),
    bug("a sample of text", {ITEM: 'return "one", self.y[index]', FORWARD: f"{FORWARD}  # here"}, "not tuple"),
    bug("a sample of three", {ITEM: f"{ITEM}, index", "x, y = batch": "x, y = batch  # here"}, "too many values"),
    bug("labels as floats", {LABELS: f"{LABELS}.float()", LOSS: f"{LOSS}  # here"}, "(8,) float32 … Float"),
    bug("labels from 1 on", {LABELS: f"{LABELS} + 1", LOSS: f"{LOSS}  # here"}, "Target 3 is out of bounds"),
    bug("inputs in fp64", {INPUTS: f"{INPUTS}.double()", FORWARD: f"{FORWARD}  # here"}, "(8, 4) float64 … dtype"),
    bug("whole numbers as inputs", {INPUTS: f"{INPUTS}.long()", FORWARD: f"{FORWARD}  # here"}, "(8, 4) int64"),
    bug(
        "fewer labels than inputs",
        {"(points,)": "(points - 9,)", "return len(self.y)": "return len(self.x)", ITEM: f"{ITEM}  # here"},
        "out of bounds for dimension 0 with size 55",
    ),
    wrong("a sample that is nothing", {ITEM: "return None"}, "data.collate"),
    wrong(
        "a picture as it was opened", {ITEM: "return __import__('PIL.Image').Image.new('L', (4, 4))"}, "data.collate"
    ),
    wrong(
        "samples of several shapes",
        {ITEM: "return self.x[index][: int(index) % 3 + 1], self.y[index]"},
        "data.collate",
    ),
    wrong("no length", {"def __len__": "def length"}, "data.train has no length or no __getitem__"),
    wrong("a length that is none", {"return len(self.y)": "return self.y"}, "gives no number … mine/parts.py:2"),
    wrong("a length of zero", {"points=64": "points=0"}, "data.train is empty"),
    wrong("no __getitem__", {"def __getitem__": "def get"}, "data.train has no length or no __getitem__"),
    wrong("no index", {"def __getitem__(self, index):": "def __getitem__(self):  # here"}, "is called with (index)"),
    wrong(
        "a file that is not there", {"draw =": 'open("no/file")  # here\n        draw ='}, "data.train … No such file"
    ),
]
METRIC = """class F1(Metric):
    def update(self, x):
        %s

    def merge(self, others):
        pass

    def compute(self):
        return 1.0


class Loss("""
IMPORTED = {IMPORTS: "from phalanx import Metric, Ratio, Task, Update"}
METRICS = '\n\n    def metrics(self):\n        return {"f1": %s}'
UPDATED = 'return {"loss": Ratio(loss, len(y)), "f1": Update(y)}'
TASK = [
    wrong("a task that returns the loss", {RETURN: "return loss"}, "answered with a tensor … Write return {"),
    wrong("a task that returns nothing", {RETURN: "pass"}, "answered with nothing … Write return {"),
    wrong("a task without a loss", {'"loss": Ratio(loss, len(y)), ': ""}, "must be called loss"),
    wrong("a loss that is no Ratio", {"Ratio(loss, len(y))": "loss"}, "and no ratio … Ratio(F.cross_entropy("),
    wrong("a loss a sample", {'reduction="sum"': 'reduction="none"'}, "should be one number. Return its sum"),
    wrong("a count of zero", {"Ratio(loss, len(y))": "Ratio(loss, 0)"}, "divides its loss by 0"),
    wrong("a loss by .item()", {"Ratio(loss, len(y))": "Ratio(loss.item(), len(y))"}, "taken out by .item()"),
    wrong("a metric's name that is taken", {'"accuracy"': '"lr"'}, "has a metric called lr … Call it lr_of_task"),
    wrong("a metric's name that is a number", {'"accuracy"': "3"}, "a metric called 3"),
    wrong("a backward of one's own", {LOSS: f"{LOSS}\n        loss.backward()"}, "Leave loss.backward() and"),
    wrong("no ratios", {"def ratios(": "def ratio("}, "mine.parts.Loss is abstract"),
    wrong("ratios with one argument", {"def ratios(self, model, batch)": "def ratios(self, batch)"}, "(model, batch)"),
    wrong("a task that is none", {"class Loss(Task):": "class Loss:"}, "no class derived from Task"),
    wrong("a metric that is none", {RETURN: RETURN + METRICS % 3}, "a f1 that is a int, and no Metric"),
    wrong(
        "a metric that is not updated",
        {**IMPORTED, RETURN: RETURN + METRICS % "F1()", "class Loss(": METRIC % "pass"},
        "nothing to update it with",
    ),
    bug(
        "a metric that raises",
        {**IMPORTED, RETURN: UPDATED + METRICS % "F1()", "class Loss(": METRIC % "x.nothing  # here"},
        "no attribute 'nothing'",
    ),
    wrong(
        "a metric that takes others than it is given",
        {
            **IMPORTED,
            RETURN: UPDATED + METRICS % "F1()",
            "class Loss(": METRIC % "pass",
            "update(self, x)": "update(self)",
        },
        "F1.update takes (), at mine/parts.py:31, and ratios() of the task returned an Update of f1 with (Tensor)",
    ),
    bug("a task that raises", {LOSS: "loss = undefined  # here"}, "NameError"),
    bug("a task that exits", {LOSS: "exit(0)  # here"}, "SystemExit"),
    bug(
        "a task that raises in evaluations",
        {LOSS: f"{LOSS}\n        if not model.training:\n            1 / 0  # here"},
        "ZeroDivisionError",
    ),
    bug(
        "a task that raises on one rank",
        {LOSS: f'{LOSS}\n        {ON_ONE_RANK}:\n            raise ValueError("mine")  # here'},
        "error on rank 1 … ValueError: mine",
        ranks=2,
    ),
    bug(
        "a task that raises on one rank later on",
        {LOSS: f'{LOSS}\n        {ON_ONE_RANK} and self.now.step == 4:\n            raise ValueError("mine")  # here'},
        "error on rank 1 … in step 5 … ValueError: mine",
        ranks=2,
        begins=True,
    ),
    Mistake(
        "inputs that are no numbers",
        {INPUTS: f"{INPUTS} * float('nan')"},
        "steps in a row … not finite",
        words=("train.max_skips=2",),
        code=4,
        begins=True,
    ),
]
METHOD = RETURN + "\n\n    def %s"
OF_DATA = ITEM + "\n\n    def %s"
HOOKS = [
    wrong(
        "derive gives a number",
        {RETURN: METHOD % "derive(self, sums):\n        return 3"},
        "derive() answered with a int",
    ),
    wrong("derive of no sums", {RETURN: METHOD % "derive(self):  # here\n        return {}"}, "def derive(self, sums)"),
    wrong(
        "show gives a tensor", {RETURN: METHOD % 'show(self, model, batch):\n        return {"x": batch[0]}'}, "Show an"
    ),
    wrong(
        "show of no batch",
        {RETURN: METHOD % "show(self, model):  # here\n        return {}"},
        "def show(self, model, batch)",
    ),
    wrong(
        "metrics that are a list",
        {RETURN: METHOD % "metrics(self):\n        return [1]"},
        "metrics() answered with a list",
    ),
    wrong(
        "collate of no samples",
        {ITEM: OF_DATA % "collate(self):  # here\n        return 1"},
        "def collate(self, samples)",
    ),
    wrong(
        "a batch of no indices", {ITEM: OF_DATA % "__getitems__(self):  # here\n        return 1"}, "(self, indices)"
    ),
    bug("derive raises", {RETURN: METHOD % "derive(self, sums):\n        return sums['no']  # here"}, "KeyError: 'no'"),
    bug("show raises", {RETURN: METHOD % "show(self, model, batch):\n        1 / 0  # here"}, "ZeroDivisionError"),
    bug("check raises", {RETURN: METHOD % "check(self, dataset):\n        1 / 0  # here"}, "ZeroDivisionError"),
    bug("metrics raises", {RETURN: METHOD % "metrics(self):\n        1 / 0  # here"}, "ZeroDivisionError"),
    bug(
        "collate raises",
        {ITEM: OF_DATA % "collate(self, samples):\n        1 / 0  # here"},
        "with one of the data set's samples",
    ),
    bug("a batch raises", {ITEM: OF_DATA % "__getitems__(self, indices):\n        1 / 0  # here"}, "ZeroDivisionError"),
    wrong(
        "a batch of less than was asked for",
        {ITEM: OF_DATA % "__getitems__(self, indices):\n        return self.x[indices][:3], self.y[indices][:3]"},
        "by 3, and a batch has 8 samples",
    ),
    wrong("a model that is frozen", {LAYERS: f"{LAYERS}\n        self.requires_grad_(False)"}, "no parameter to train"),
    wrong(
        "a change in place",
        {FORWARD: "y = self.layers(x).sigmoid()\n        y += 1\n        return y"},
        "changed after it was used … write x = x + y",
    ),
    wrong("a forward without gradients", {FORWARD: f"with torch.no_grad():\n            {FORWARD}"}, "torch.no_grad()"),
    wrong(
        "a count that is nothing",
        {"Ratio(hits, len(y))": "Ratio(hits, None)"},
        "count of the task's accuracy is nothing",
    ),
]
PHASES = [
    wrong(
        "phases that match nothing",
        {"class Loss(Task):": 'class Loss(Task):\n    phases = {"d": "critic"}'},
        "matches the name of no parameter",
    ),
    wrong(
        "phases that share",
        {"class Loss(Task):": 'class Loss(Task):\n    phases = {"d": "0|2", "g": "2"}'},
        "the phases d and g",
    ),
    wrong(
        "phases that leave some out",
        {"class Loss(Task):": 'class Loss(Task):\n    phases = {"d": "0"}'},
        "in none of the",
    ),
    wrong("phases in a list", {"class Loss(Task):": 'class Loss(Task):\n    phases = ["0", "2"]'}, "should be a dict"),
]
IN_THE_CODE = [*MODEL, *DATA, *TASK, *HOOKS, *PHASES]
