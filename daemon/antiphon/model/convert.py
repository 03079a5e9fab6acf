"""A model file in another form: official or our own, candle's, web-rwkv's or rwkv.cpp's, written tensor by tensor."""

from __future__ import annotations

from collections.abc import Mapping
from enum import StrEnum
from pathlib import Path

from antiphon.errors import AntiphonError, FileError
from antiphon.model.candle_form import candle_config, candle_promises
from antiphon.model.own_form import own_metadata, own_promises
from antiphon.model.precision import Precision
from antiphon.model.rwkv_cpp_writer import DataType, write_rwkv_cpp
from antiphon.model.safetensors_writer import write_safetensors
from antiphon.model.source import LN_X_EPS, Source
from antiphon.model.spec import Version
from antiphon.model.web_rwkv_form import METADATA, web_rwkv_promises
from antiphon.model.whole_file import whole_file


class Form(StrEnum):
    """Whose files to write."""

    SAFETENSORS = "safetensors"
    CANDLE = "candle"
    WEB_RWKV = "web-rwkv"
    RWKV_CPP = "rwkv.cpp"


RWKV_CPP_TYPES: Mapping[str, DataType] = {
    "": DataType.FP16,
    "fp32": DataType.FP32,
    "fp16": DataType.FP16,
    "int8": DataType.Q8_0,
    "int4": DataType.Q4_0,
    **{kind.name.lower(): kind for kind in DataType},
}
"""What rwkv.cpp's files may be quantized as, by the words that stand for it."""


def convert(source: Source, out: Path, *, form: Form, quantize: str = "", config: Path | None = None) -> list[str]:
    """Write `source` to `out`, all or nothing; returns what the new file cannot say, in a sentence each.

    quantize: a precision, or one of rwkv.cpp's types; "" leaves the matrices as they are (float16 for rwkv.cpp, as
    its own converter does). config: where candle's config.json goes, beside `out` when None. Raises FileError for what
    cannot be written and AntiphonError for a form that has no such precision.
    """
    if source.path.resolve() == out.resolve():
        raise FileError("would be written over itself", where=str(out), fix="name another file")
    if form is Form.RWKV_CPP:
        if quantize not in RWKV_CPP_TYPES:
            raise AntiphonError(f"rwkv.cpp has no type {quantize}", fix=f"give one of {_list(RWKV_CPP_TYPES)}")
        write_rwkv_cpp(out, source, RWKV_CPP_TYPES[quantize])
    elif form is Form.CANDLE:
        _refuse(quantize, "fp32", form)
        write_safetensors(out, candle_promises(source), {})
        with whole_file(config if config is not None else out.with_name("config.json")) as file:
            file.write(candle_config(source.spec).encode())
    elif form is Form.WEB_RWKV:
        _refuse(quantize, "fp16", form)
        names = [*source.shapes, *source.start_state_names]
        write_safetensors(out, web_rwkv_promises(source, names), METADATA)
    else:
        precision = _precision(quantize) if quantize else None
        write_safetensors(out, own_promises(source, precision), own_metadata(source, source.spec, precision))
    return _lost(source, form)


def _precision(text: str) -> Precision:
    try:
        return Precision(text)
    except ValueError as error:
        raise AntiphonError(f"there is no precision {text}", fix=f"give one of {', '.join(Precision)}") from error


def _refuse(quantize: str, only: str, form: Form) -> None:
    if quantize not in ("", only):
        raise AntiphonError(f"the {form} form is {only} and nothing else", fix="leave --quantize out")


def _list(words: Mapping[str, object]) -> str:
    return ", ".join(word for word in words if word)


def _lost(source: Source, form: Form) -> list[str]:
    """What the form has no place for."""
    told = []
    if source.start_state_names and form in (Form.RWKV_CPP, Form.CANDLE):
        told.append(f"the start state is left out: {form} has no place for one")
    if "tokenizer" in source.metadata and form is not Form.SAFETENSORS:
        told.append(f"what the file says of its tokenizer is left out: {form} has no place for it")
    fifth = source.spec.version in (Version.V5_0, Version.V5_1, Version.V5_2)
    if fifth and form is Form.RWKV_CPP and source.ln_x_eps == LN_X_EPS:
        told.append("rwkv.cpp norms RWKV-5's heads with 1e-5, not the 64e-5 of this model: its numbers will differ")
    if form is Form.WEB_RWKV and source.ln_x_eps != LN_X_EPS:
        told.append(
            f"web-rwkv norms heads with 64e-5, not the {source.ln_x_eps:g} of this model: its numbers will differ"
        )
    if source.spec.version is Version.V5_0 and form is Form.WEB_RWKV:
        told.append("web-rwkv knows no RWKV-5.0")
    return told
