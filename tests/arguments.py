"""Arguments that a verb takes, made of what its Request declares: the least that is understood."""

import re
from typing import Any

from msgspec import inspect

from muster.node.verb import Verb


def good(verb: Verb) -> dict[str, Any]:
    """Every argument that is required, and is signed; none other."""
    *_, request, _ = verb.load().__annotations__.values()
    unsigned = {arg.name for arg in (*verb.args, *verb.data) if arg.unsigned}
    return {name: value for name, value in _least(request).items() if name not in unsigned}


def _least(struct: Any) -> dict[str, Any]:
    fields = inspect.type_info(struct).fields  # type: ignore[attr-defined]
    return {each.encode_name: _value(each.type) for each in fields if each.required}


def _value(type: Any) -> Any:
    match type:
        case inspect.Metadata(type=inner):
            return _value(inner)
        case inspect.LiteralType(values=values):
            return values[0]
        case inspect.StrType(pattern=pattern):
            some = ("x", "0" * 64)
            return next((x for x in some if pattern is None or re.match(pattern, x)), "")
        case inspect.IntType(ge=ge):
            return max(ge or 0, 1)
        case inspect.BoolType():
            return False
        case inspect.TupleType(item_types=types):
            return [_value(each) for each in types]
        case inspect.VarTupleType(item_type=item) | inspect.ListType(item_type=item):
            return [_value(item)]
        case inspect.NamedTupleType(fields=fields):
            return [_value(each.type) for each in fields]
        case inspect.StructType(cls=struct):
            return _least(struct)
        case inspect.DictType():
            return {}
    raise AssertionError(f"{type} is an argument that nobody thought of here")
