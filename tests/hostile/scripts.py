"""Hostile scripts: what they do to time, memory, recursion, to what they write, and to the sandbox."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from functools import partial

import flows

from hostile.attacker import Attacker, Member, together
from hostile.expressions import shortened

LOOPS = [
    "while True: pass",
    "for i in range(10 ** 12): pass",
    "n = 0\nwhile n >= 0:\n    n += 1",
    "while True:\n    try:\n        raise ValueError('again')\n    except ValueError:\n        pass",
    "def f():\n    while True:\n        yield 1\nfor x in f(): pass",
    "x = [i for i in range(10 ** 9)]",
    "sum(i * j for i in range(10 ** 5) for j in range(10 ** 5))",
    "import time\nwhile True:\n    time.sleep(0)",
    "import time\ntime.sleep(10 ** 9)",
    "import json\nwhile True:\n    json.loads(json.dumps([1] * 1000))",
    "x = list(range(200000))\nwhile True:\n    x.sort(reverse=True)\n    x.sort()",
    "sorted([[i % 7, -i] for i in range(10 ** 6)])",
    "while True:\n    sorted('x' * 1000 + str(i) for i in range(2000))",
    "x = 'a' * 30000\nwhile True:\n    ('a' * 15000 + 'b') in x",
    "while True:\n    'x'.join(str(i) for i in range(10000))",
    "while True:\n    'a,' .__class__",
    "2 ** 10 ** 7",
    "x = 3\nwhile True:\n    x = x * x",
    "n = 10 ** 10000\nwhile True:\n    n = n // 3 * 3 + 1",
    "str(7 ** 400000)",
    "int('9' * 1000000)",
    "pow(3, 10 ** 9, 10 ** 9 + 7)\nwhile True:\n    pow(3, 10 ** 300, 10 ** 301 + 7)",
    "def fib(n):\n    return n if n < 2 else fib(n - 1) + fib(n - 2)\nfib(60)",
    "def hanoi(n, a, b, c):\n    if n:\n        hanoi(n - 1, a, c, b)\n        hanoi(n - 1, c, b, a)\nhanoi(64, 1, 2, 3)",
    "import math\nwhile True:\n    math.factorial(3000)",
    "import math\nmath.factorial(10 ** 9)",
    "from decimal import Decimal\nx = Decimal(1) / Decimal(3)\nwhile True:\n    x = x * x",
    "import copy\nx = [[i] for i in range(50000)]\nwhile True:\n    copy.deepcopy(x)",
    "import uuid\nwhile True:\n    uuid.uuid4()",
    "import base64\nwhile True:\n    base64.b64encode(b'x' * 1000000)",
    "import datetime\nwhile True:\n    datetime.datetime.now()",
]
"""Work without an end."""

PATTERNS = [
    ("(a+)+$", "'a' * 40 + 'b'"),
    ("(a|aa)+$", "'a' * 50 + 'b'"),
    ("(.*)*x", "'a' * 40"),
    ("([a-z]+)*\\\\1!", "'a' * 40"),
    ("^(\\\\w+\\\\s?)*$", "'word ' * 20 + '!'"),
    ("(?:a?){50}a{50}", "'a' * 50"),
    ("((a{0,100}){0,100}){0,100}", "'a' * 100"),
    ("a{100000}", "'a' * 100000"),
    ("(?=(a+))\\\\1b", "'a' * 30000"),
    ("x*" * 500 + "y", "'x' * 500"),
]
"""Patterns that go back and forth, each with a text."""

MEMORY = [
    "x = 'x' * 10 ** 10",
    "x = [0] * 10 ** 9",
    "x = 'x'\nwhile True:\n    x += x",
    "x = [0]\nwhile True:\n    x += x",
    "x = []\nwhile True:\n    x.append('x' * 1000)",
    "x = {}\ni = 0\nwhile True:\n    x[i] = [i]\n    i += 1",
    "x = set()\ni = 0\nwhile True:\n    x.add(str(i))\n    i += 1",
    "x = b'x' * 10 ** 10",
    "x = tuple(range(10 ** 8))",
    "x = bytearray(10 ** 10)",
    "x = ['y' * 10 ** 6 for i in range(10 ** 6)]",
    "x = ('x' * 10 ** 7).replace('x', 'y' * 1000)",
    "x = 'x' * 10 ** 6\nx = x.join([x] * 1000)",
    "x = '%1000000000d' % 1",
    "x = f'{1:1000000000}'",
    "x = '{:>1000000000}'.format(1)",
    "x = 'x'.center(10 ** 9)",
    "x = 'x'.zfill(10 ** 9)",
    "x = 'x\\t'.expandtabs(10 ** 9)",
    "x = repr('\\x00' * 10 ** 7)",
    "x = 1 << 10 ** 10",
    "x = 10 ** 10 ** 8",
    "x = list(map(str, range(10 ** 8)))",
    "x = [None]\nfor i in range(40):\n    x = [x, x]\nstr(x)",
    "import json\nx = [None]\nfor i in range(30):\n    x = [x, x]\njson.dumps(x)",
    "import copy\nx = [None]\nfor i in range(30):\n    x = [x, x]\nx == copy.deepcopy(x)",
    "x = {}\nfor i in range(10 ** 6):\n    x['k' * 100 + str(i)] = x.copy()",
    "def f(n):\n    x = [0] * 10 ** 6\n    return f(n + 1)\nf(0)",
    "x = 'é' * 10 ** 7\nx = x.encode() * 100",
    "class A:\n    pass\nx = [A() for i in range(10 ** 8)]",
]
"""Memory without a bound."""

RECURSION = [
    "def f(): return f()\nf()",
    "def f(n): return [f(n + 1)]\nf(0)",
    "f = lambda g: g(g)\nf(f)",
    "def f(n):\n    try:\n        return f(n + 1)\n    except RecursionError:\n        return f(n + 1)\nf(0)",
    "def f():\n    try:\n        f()\n    finally:\n        f()\nf()",
    "x = []\nx.append(x)\nset_data_output('result', x)",
    "x = {}\nx['x'] = x\nemit_output(x)",
    "x = []\nfor i in range(100000):\n    x = [x]\nset_data_output('result', x)",
    "x = []\nfor i in range(100000):\n    x = [x]\nstr(x)",
    "x = []\nfor i in range(100000):\n    x = (x,)\nx == x",
    "x = []\nfor i in range(100000):\n    x = {'a': x}\nemit_output(x)",
    "import json\njson.loads('[' * 100000)",
    "import json\njson.loads('[' * 100000 + ']' * 100000)",
    "import json\nx = []\nfor i in range(10000):\n    x = [x]\njson.dumps(x)",
    "import copy\nx = []\nfor i in range(10000):\n    x = [x]\ncopy.deepcopy(x)",
    "x = " + "(" * 500 + ")" * 500,
    "x = " + "[" * 5000 + "]" * 5000,
    "x = " + "-" * 20000 + "1",
    "x = " + "not " * 5000 + "1",
    "x = 1" + " + 1" * 50000,
    "x = a" + ".a" * 20000,
    "x = " + "lambda: " * 3000 + "1",
    "\n".join("  " * depth + "if True:" for depth in range(300)) + "\n" + "  " * 300 + "pass",
    "\n".join("  " * depth + "def f():" for depth in range(200)) + "\n" + "  " * 200 + "pass",
    "x = " + "f'{" * 50 + "1" + "}'" * 50,
]
"""Depth, of calls, values and source."""

WRITES = [
    "set_data_output('result', [None] * 200000)",
    "set_data_output('result', 'x' * 1048574)",
    "set_data_output('result', '\\x00' * 170000)",
    "set_data_output('result', '\\ud800')",
    "set_data_output('result', 'é' * 524287)",
    "set_data_output('result', {str(i): i for i in range(70000)})",
    "set_data_output('result', [0.1] * 250000)",
    "set_data_output('result', [2 ** 63 - 1] * 50000)",
    "set_data_output('result', [{}] * 300000)",
    "set_data_output('result', 10 ** 400)",
    "set_data_output('result', 10 ** 100000)",
    "set_data_output('result', float('nan'))",
    "set_data_output('result', [float('inf')] * 100000)",
    "set_data_output('result', {1: 2, '1': 3})",
    "set_data_output('result', {(1, 2): 3})",
    "set_data_output('result', b'x' * 1000000)",
    "set_data_output('result', print)",
    "set_data_output('result', [set_result] * 100000)",
    "set_data_output('result', list(range(5000000)))",
    "set_data_output('result', 'x' * 30000000)",
    "set_data_output('result', ['x' * 1000000] * 30)",
    "x = ['x' * 1000]\nfor i in range(12):\n    x = x + x\nset_data_output('result', [x] * 12)",
    "x = [None]\nfor i in range(22):\n    x = [x, x]\nset_data_output('result', x)",
    "for i in range(100000):\n    set_data_output(str(i), i)",
    "for i in range(60):\n    set_data_output(str(i), 'x' * 500000)",
    "set_data_output('k' * 1000000, 1)",
    "set_data_output(10 ** 1000, 1)",
    "set_data_output(None, None)",
    "set_data_output([], [])",
    "for i in range(999):\n    emit_output('x' * 1000)",
    "for i in range(999):\n    emit_output('x' * 1048000)",
    "for i in range(999):\n    emit_output([None] * 200000)",
    "for i in range(999):\n    emit_output({str(j): j for j in range(1000)})",
    "while True:\n    emit_output(1)",
    "while True:\n    try:\n        emit_output(10 ** 400)\n    except Exception:\n        pass",
    "while True:\n    try:\n        emit_output('x' * 5000000)\n    except Exception:\n        pass",
    "for i in range(500):\n    try:\n        emit_output([[0] * 1000] * 3000)\n    except Exception:\n        pass",
    "emit_output('x' * 50000000)",
    "emit_output(['x' * 1000000] * 50)",
    "emit_output(list(range(5000000)))",
    "emit_output()",
    "emit_output(1, 2, 3)",
    "emit_output(value='x' * 1000000)",
    "emit_output(*[1] * 1000000)",
    "print('x' * 50000000)",
    "print(['x' * 1000000] * 50)",
    "print(*range(1000000))",
    "while True:\n    print('x')",
    "while True:\n    print('x' * 100000)",
    "for i in range(100000):\n    print(i, end='')",
    "print('x', sep=1, end=[], file=print)",
    "print('\\ud800' * 1000)",
    "set_result('x' * 10000000)",
    "set_result(10 ** 1000)",
    "set_result(['success'] * 100000)",
    "set_result(None)",
    "set_result('sucess')",
    "set_result('', terminal='x' * 1000000)",
    "_ended['route'] = [0] * 1000000",
    "_ended['outputs'] = 'x' * 10000000",
    "_ended['outputs'] = {i: [i] for i in range(100000)}",
    "_ended = None",
    "_ended = [0] * 5000000",
    "del _ended",
    "_ended.clear()",
    "_ended['terminal'] = [[0] * 1000] * 1000",
    "data_inputs = {str(i): 'x' * 100000 for i in range(500)}",
    "for i in range(1000000):\n    create_message('user', 'x' * 1000)",
    "set_data_output('result', create_value('json', create_value('json', create_value('json', 'x' * 1000000))))",
]
"""Outputs, emissions, prints and routes that are too many, too large, or none."""

RAISES = [
    "raise ValueError('x' * 10 ** 7)",
    "raise ValueError(['x' * 1000000] * 20)",
    "raise ValueError(*range(1000000))",
    "raise ValueError('\\ud800' * 100000)",
    "raise ValueError('\\x00\\x1b[2J' * 100000)",
    "raise Exception from Exception('x' * 10 ** 7)",
    "raise KeyError(10 ** 100000)",
    "raise SystemExit('x' * 10 ** 7)",
    "raise KeyboardInterrupt",
    "raise BaseException",
    "raise GeneratorExit",
    "raise StopIteration",
    "raise MemoryError('x' * 10 ** 6)",
    "raise TimeoutError('not really')",
    "raise RecursionError('not really')",
    "raise 1",
    "assert False, 'x' * 10 ** 7",
    "exit()",
    "x = {}\nx['x' * 10 ** 6 + 'y']",
    "int('x' * 10 ** 6)",
    "getattr(1, 'x' * 10 ** 6)",
    "e = ValueError('x' * 1000)\nfor i in range(10000):\n"
    "    try:\n        raise ValueError(str(i)) from e\n    except ValueError as caught:\n        e = caught\nraise e",
    "def f(n):\n    if n:\n        f(n - 1)\n    raise ValueError('x' * 100000)\nf(150)",
    "class E(Exception):\n    def __str__(self):\n        while True: pass\nraise E",
]
"""Errors that say much, or something else."""

TRICKS = [
    "import os\nos.system('kill -9 -1')",
    "import os\nos._exit(1)",
    "import sys\nsys.setrecursionlimit(10 ** 9)",
    "import sys\nsys.exit('x' * 10 ** 6)",
    "import sys\nsys.stdout.write('x' * 10 ** 7)",
    "import ctypes\nctypes.string_at(0)",
    "import socket\nsocket.socket().connect(('127.0.0.1', 7443))",
    "import subprocess\nsubprocess.run(['kill', '-9', '-1'])",
    "import threading\nthreading.Thread(target=print).start()",
    "import gc\ngc.get_objects()",
    "import asyncio\nasyncio.run(asyncio.sleep(10 ** 9))",
    "await emit_output(1)",
    "async def f():\n    while True:\n        await f()\nawait f()",
    "open('/etc/passwd').read()",
    "open('/proc/self/mem', 'wb').write(b'x')",
    "__import__('os').system('id')",
    "eval('9' * 10 ** 6)",
    "exec('while True: pass')",
    "compile('x' * 10 ** 6, '', 'exec')",
    "().__class__.__bases__[0].__subclasses__()",
    "emit_output.__globals__",
    "emit_output.__self__.__class__.__init__.__globals__",
    "set_result.__code__.co_consts",
    "(lambda: 0).__globals__['__builtins__']",
    "globals()['_ended'] = 1",
    "vars()\nlocals()\ndir()",
    "type('A', (), {'__del__': lambda self: 1})()",
    "class A:\n    def __getattr__(self, name):\n        return getattr(self, name + 'x')\nA().x",
    "class A:\n    def __eq__(self, other):\n        return self == other\nA() == 1",
    "class A:\n    def __len__(self):\n        return 10 ** 30\nlen(A())",
    "class A:\n    def __iter__(self):\n        return self\n    def __next__(self):\n        return 1\nlist(A())",
    "class A:\n    def __hash__(self):\n        return 1\nx = {A(): i for i in range(10 ** 5)}",
    "emit_output = set_data_output = None\nset_result()",
    "def emit_output(x): return emit_output(x)\nemit_output(1)",
    "import json\njson.dumps = None",
    "import re\nre.compile('(' * 10000)",
    "import functools\nfunctools.reduce(lambda a, b: a + a, range(100), 'x')",
    "from dataclasses import dataclass\n@dataclass\nclass A:\n    x: object = None\n"
    "x = None\nfor i in range(10000):\n    x = A(x)\nset_data_output('result', x)",
    "x = {i: 'x' for i in range(10 ** 5)}\nfor k in x:\n    x[k + 0.5] = 1",
    "x = [1]\nfor y in x:\n    x.append(y)",
    "'%s' * 10 ** 6 % tuple(range(10 ** 6))",
    "'{0.__class__.__mro__}'.format(1)",
    "\x00",
    "\ufeffx = 1",
    "\ud800",
    "# " + "é" * 400_000,
    "x = '" + "x" * 900_000 + "'",
    "x = 1\n" * 150_000,
    "def f" + str(1) + "(): pass\n" * 1,
    ";" * 100_000,
    "\n" * 900_000,
    "\t" * 500_000 + "x",
    "if True:\n" + " " * 900_000 + "pass",
    "x = [" + "0," * 400_000 + "]",
    "x = {" + "'a':0," * 150_000 + "}",
    "f(" + "a=1," * 100_000 + ")",
    "\n".join(f"v{number} = {number}" for number in range(60_000)),
    "\n".join(f"def f{number}(): pass" for number in range(30_000)),
    "x = " + "9" * 900_000,
    "x = 0x" + "f" * 900_000,
    "x = 1e" + "9" * 100_000,
    "x" * 900_000,
    '"""' + "x" * 900_000,
    "(" * 900_000,
    "]" * 900_000,
    "@" * 100_000,
    "'" * 900_001,
    "\\" * 100_000,
]
"""Ways out of the sandbox, and sources that are hard to read."""

FLOODS = {
    "twenty at once": "set_data_output('result', ['x' * 1000] * 900)",
    "twenty endless": "while True: pass",
    "twenty that emit": "for i in range(999):\n    emit_output('x' * 10000)",
    "twenty that emit large values": "for i in range(999):\n    emit_output('x' * 1000000)",
    "twenty that fail": "raise ValueError('x' * 100000)",
    "twenty that take memory": "x = ['x' * 10 ** 6 for i in range(60)]\nset_data_output('result', x)",
}
"""One script, many times at once."""

GROWING = {
    "a text that doubles": "x = inputs.get('seen') or 'x'\nset_data_output('result', x + x)",
    "a list that doubles": "x = inputs.get('seen') or [0]\nset_data_output('result', x + x)",
    "a value that nests": "set_data_output('result', [inputs.get('seen')])",
    "a log that grows": "emit_output('x' * 100000)\nset_data_output('result', 1)",
    "the largest outputs again and again": "set_data_output('result', 'x' * 1048000)",
    "very many nulls again and again": "set_data_output('result', [None] * 200000)",
}
"""Scripts that get control, and their own result, again and again."""


def members() -> Iterator[Member]:
    """Each of them in a workflow of its own."""
    patterns = [f"import re\nre.search('{pattern}', {text})" for pattern, text in PATTERNS]
    sources = {"loop": LOOPS, "pattern": patterns, "memory": MEMORY, "depth": RECURSION}
    sources |= {"write": WRITES, "raise": RAISES, "trick": TRICKS}
    for what, texts in sources.items():
        for number, text in enumerate(texts):
            yield _member(f"{what} {number:02} {shortened(text)}", text, flows.code(text))
    for name, text in FLOODS.items():
        yield _member(name, f"flood {text}", beside(text, 20))
    for name, text in GROWING.items():
        yield _member(name, f"growing {text}", again(text))
    name = "fifteen executions that keep what they make"
    yield Member(kind="script", name=name, content=lambda: keeping(40), attack=_keep)


def _member(name: str, content: str, document: str) -> Member:
    return Member(kind="script", name=name, content=lambda: content, attack=partial(_attack, document))


async def _attack(document: str, attacker: Attacker) -> None:
    await attacker.ask("CheckDefinition", revision=attacker.draft, document=document)
    await attacker.run(document, step_limit=300)


async def _keep(attacker: Attacker) -> None:
    """Have executions hold all that they may, and wait."""
    await attacker.put(keeping(40))
    spec = {"definition": "hostile", "timeout": {"seconds": 20}}
    await together(*(attacker.ask("RunExecution", session=attacker.session, spec=spec) for _ in range(15)))


def keeping(count: int) -> str:
    """So many scripts one after the other, each with a large output, and then a delay."""
    source = "set_data_output('result', 'x' * 1048000)"
    names = [f"it-{number}" for number in range(count)]
    its = [flows.component(name, "logic.code", code=source) for name in names]
    links = [flows.control(a, b, "success") for a, b in itertools.pairwise([*names, "wait"])]
    wait = flows.component("wait", "flow.delay", seconds=600)
    return flows.document([flows.component("start", "flow.start"), *its, wait], [flows.control("start", names[0]), *links])


def beside(source: str, count: int) -> str:
    """Start, and so many scripts at once."""
    names = [f"it-{number}" for number in range(count)]
    its = [flows.component(name, "logic.code", code=source) for name in names]
    return flows.document([flows.component("start", "flow.start"), *its], [flows.control("start", name) for name in names])


def again(source: str) -> str:
    """A script that gets control back, with its result as the input `seen`."""
    it = flows.component("it", "logic.code", ports=[flows.port("data_input", "seen")], code=source)
    links = [flows.control("it", "it", "success"), flows.data("it", "result", "it", "seen")]
    return flows.document([flows.component("start", "flow.start"), it], [flows.control("start", "it"), *links])
