"""Goes over all messages of a model, wherever they stand: in graphs, attributes, functions, training."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from google.protobuf.descriptor import FieldDescriptor
from google.protobuf.message import Message
from onnx import AttributeProto, FunctionProto, GraphProto, NodeProto, TensorProto, ValueInfoProto

from blobhub_server.onnx.refusal import ModelRefused, RefusalReason, quoted


@dataclass(frozen=True, slots=True)
class Found:
    """A message, what it belongs to, in words, and how many graphs it is in."""

    message: Message
    owner: str
    depth: int


def walk(root: Message, owner: str) -> Iterator[Found]:
    """A message and all below it, without those within tensors.

    It asks the messages for their fields instead of knowing them, so that no place is forgotten where a tensor may be. It
    does not call itself: what is nested deep costs no stack.
    """
    found = [Found(message=root, owner=owner, depth=0)]
    while found:
        one = found.pop()
        yield one
        if isinstance(one.message, TensorProto):
            continue  # Its data would be copied to look at it.
        owner, depth = _named(one.message, one.owner), one.depth + isinstance(one.message, GraphProto)
        for field, value in one.message.ListFields():
            if field.type == FieldDescriptor.TYPE_MESSAGE:
                below = value if field.is_repeated else (value,)
                found.extend(Found(message=each, owner=owner, depth=depth) for each in below)
            elif field.type == FieldDescriptor.TYPE_STRING:
                for text in value if field.is_repeated else (value,):
                    check_text(text)


def check_text(text: str | bytes) -> None:
    """Refuse a text that is not UTF-8, which protobuf gives as bytes. Raises ModelRefused."""
    if isinstance(text, bytes):
        raise ModelRefused(RefusalReason.UNREADABLE, f"a name or text in the model is not UTF-8: {text[:40]!r}")


def name_node(node: NodeProto) -> str:
    """A node for a message; many have no name, and are told by what they give."""
    if node.name:
        return f"node {quoted(node.name)} ({quoted(node.op_type)})"
    gives = f" that gives {quoted(node.output[0])}" if node.output else ""
    return f"the node {quoted(node.op_type)}{gives}"


def _named(message: Message, owner: str) -> str:
    match message:
        case NodeProto():
            return name_node(message)
        case AttributeProto():
            return f"attribute {quoted(message.name)} of {owner}"
        case FunctionProto():
            return f"function {quoted(message.name)}"
        case ValueInfoProto():
            return f"value {quoted(message.name)}"
    return owner
