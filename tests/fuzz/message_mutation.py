"""Changes to protobuf messages of any type, by their descriptors: edge values, fields set, left out, filled."""

from random import Random
from typing import Any

from google.protobuf.descriptor import FieldDescriptor
from google.protobuf.message import Message

from tests.fuzz.bytes_mutation import EDGE_NUMBERS

_TEXTS = ("", "a", "\0", "é", "🪨", "<|im_start|>", "\n" * 3, "x" * 300, "x" * 5_000, "￿", "a b", "user", "{{ x }}")
_NUMBERS = (0.0, -0.0, 1.0, 0.5, -1.0, 2.0, 10.0, 1e-9, 1e9, 1e300, 1e-320, float("nan"), float("inf"), float("-inf"))
_BITS = {
    FieldDescriptor.CPPTYPE_INT32: (-(1 << 31), 32),
    FieldDescriptor.CPPTYPE_UINT32: (0, 32),
    FieldDescriptor.CPPTYPE_INT64: (-(1 << 63), 64),
    FieldDescriptor.CPPTYPE_UINT64: (0, 64),
}
_MANY = (1, 2, 3, 17, 65, 200, 1_100)


def mutate_message(random: Random, message: Message) -> None:
    """Changes one field somewhere in the message, which may create messages inside."""
    field: Any = random.choice(message.DESCRIPTOR.fields)
    value = getattr(message, field.name)
    if _is_map(field):
        _change_map(random, value, field)
    elif field.is_repeated:
        _change_list(random, message, field)
    elif field.cpp_type == FieldDescriptor.CPPTYPE_MESSAGE:
        _change_inner(random, message, field)
    elif random.random() < 0.15:
        message.ClearField(field.name)
    else:
        setattr(message, field.name, _scalar(random, field))


def _is_map(field: Any) -> bool:
    return bool(field.message_type is not None and field.message_type.GetOptions().map_entry)


def _change_inner(random: Random, message: Message, field: Any) -> None:
    if random.random() < 0.15:
        message.ClearField(field.name)
        return
    inner = getattr(message, field.name)
    inner.SetInParent()
    if inner.DESCRIPTOR.fields and random.random() < 0.9:
        mutate_message(random, inner)


def _change_list(random: Random, message: Message, field: Any) -> None:
    values = getattr(message, field.name)
    if random.random() < 0.2:
        message.ClearField(field.name)
    elif field.cpp_type == FieldDescriptor.CPPTYPE_MESSAGE:
        for _ in range(random.choice(_MANY[:4])):
            added = values.add()
            if added.DESCRIPTOR.fields:
                mutate_message(random, added)
    else:
        values.extend([_scalar(random, field)] * random.choice(_MANY))


def _change_map(random: Random, values: Any, field: Any) -> None:
    key, value = (field.message_type.fields_by_name[name] for name in ("key", "value"))
    for number in range(random.choice(_MANY)):
        chosen = _scalar(random, key)
        # An edge once; where many are wanted, each another key.
        distinct = f"{chosen[:20]}{number}" if isinstance(chosen, str) else number
        name = distinct if number else chosen
        if value.message_type is None:
            values[name] = _scalar(random, value)
        else:
            mutate_message(random, values[name])


def _scalar(random: Random, field: Any) -> Any:
    kind = field.cpp_type
    if kind in _BITS:
        low, bits = _BITS[kind]
        number = random.choice((random.choice(EDGE_NUMBERS), random.randrange(20), random.randrange(300)))
        number %= 1 << bits
        return number - (1 << bits) if low and number >> (bits - 1) else number
    match kind:
        case FieldDescriptor.CPPTYPE_BOOL:
            return random.random() < 0.5
        case FieldDescriptor.CPPTYPE_FLOAT | FieldDescriptor.CPPTYPE_DOUBLE:
            return random.choice((*_NUMBERS, random.uniform(-3, 3)))
        case FieldDescriptor.CPPTYPE_ENUM:
            return random.choice((0, 1, 2, 100))
    text = random.choice(_TEXTS)
    return text.encode() if field.type == FieldDescriptor.TYPE_BYTES else text
