"""What a script finds in its sandbox, as the source that is run there before it.

Whatever the script gives becomes JSON text here, within the sandbox's limits of memory and time, and only texts within
bounds cross to the server. A list that holds one text a thousand times is small in a sandbox, and a gigabyte as JSON. A
script can put its own functions in the place of these, so the server checks what it gets; this is for errors in the
script's own line.
"""

from __future__ import annotations

from blobhub_server.blobtypes import json_text

REFUSAL = "an output must "
REFUSAL_OF_ALL = "all outputs must "
"""How the error of an output that is refused begins; that of outputs that are too large together."""
_MANY_CHARACTERS = 1_000
"""More than a route has, or it would not be refused; few enough to cross to the server."""

SOURCE = f"""
import json as _json

_ended = {{"route": "success", "terminal": False, "outputs": {{}}}}

def _text(value):
    try:
        text = _json.dumps(value, ensure_ascii=False, separators=(",", ":"), allow_nan=False)
    except RecursionError:
        raise ValueError("{REFUSAL}nest at most {json_text.MAX_DEPTH} lists and objects; it nests deeper")
    except ValueError:
        raise ValueError("{REFUSAL}hold finite numbers only, and no list or object within itself")
    except TypeError:
        raise ValueError("{REFUSAL}hold nothing but what JSON has")
    if len(text) > {json_text.MAX_BYTES}:
        raise ValueError("{REFUSAL}be at most {json_text.MAX_BYTES} bytes as JSON, not " + str(len(text)) + " or more")
    return text

def _finish():
    texts = {{}}
    size = 0
    for name, value in _ended["outputs"].items():
        name = str(name)
        texts[name] = _text(value)
        size += len(name) + len(texts[name])
        if size > {json_text.MAX_BYTES}:
            raise ValueError("{REFUSAL_OF_ALL}be at most {json_text.MAX_BYTES} bytes as JSON, not " + str(size) + " or more")
    return [str(_ended["route"])[:{_MANY_CHARACTERS}], _ended["terminal"], texts]

def emit_output(value):
    _emit(_text(value))

class Inputs:
    def __getitem__(self, name):
        if not hasattr(self, name):
            raise KeyError(name)
        return getattr(self, name)

    def get(self, name, default=None):
        return getattr(self, name, default)

inputs = Inputs()
for _name, _value in _plain.items():
    setattr(inputs, _name, _value)

def get_data_input(route):
    return data_inputs.get(route)

def set_data_output(route, value, persist=False):
    _ended["outputs"][route] = value

def set_result(route, terminal=False):
    _ended["route"] = route
    _ended["terminal"] = bool(terminal)

def exit():
    raise SystemExit()

def create_value(data_type, data):
    names = {{"boolean": "flag", "choice": "id"}}
    return {{"type": data_type, names.get(data_type, data_type): data}}

def create_message(role, text=None, attribute_id=None):
    content = [] if text is None else [{{"type": "text", "text": text}}]
    attributes = {{}} if attribute_id is None else {{"id": attribute_id}}
    return {{"type": "message", "message": {{"role": role, "content": content, "attributes": attributes}}}}

# Arguments that do not fit a function are told without the line of the call, unless they are told anew.
def _telling(function):
    def call(*given, **named):
        try:
            return function(*given, **named)
        except TypeError as error:
            raise TypeError(str(error))
    return call

emit_output, get_data_input, set_data_output = _telling(emit_output), _telling(get_data_input), _telling(set_data_output)
set_result, exit = _telling(set_result), _telling(exit)
create_value, create_message = _telling(create_value), _telling(create_message)
"""

END = "\n\nNone"
"""Put after a script, or the value of its last expression would cross to the server, of whatever size. The empty line is for
a script that ends with a backslash: it is refused as before."""
FINISH = "_finish()"
"""Gives what the script has left: its route, whether that is terminal, and the text of each output by name."""
