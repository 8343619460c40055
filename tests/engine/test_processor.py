"""What a processor can multiply with is read from what the system says of it, never from its maker's name."""

from __future__ import annotations

import pytest
import torch

from engine import processor

CORE = "processor\t: 0\nmodel name\t: {name}\ncpu family\t: {family}\nmodel\t\t: {model}\nflags\t\t: {flags}\n\nprocessor\t: 1\n"
OLD = "fpu sse4_2 avx avx2 fma"
WIDE = f"{OLD} avx512f avx512bw avx512vl avx512dq"


@pytest.fixture
def core(monkeypatch, tmp_path):
    """core(text) pretends that this is what Linux says; None that there is no such file."""

    def pretend(text: str | None) -> None:
        path = tmp_path / "cpuinfo"
        path.unlink(missing_ok=True)
        if text is not None:
            path.write_text(text, "utf-8")
        monkeypatch.setattr(processor, "CPU_INFO", path)
        processor._cpu_info.cache_clear()

    yield pretend
    processor._cpu_info.cache_clear()


@pytest.mark.parametrize(
    ("flags", "features", "bf16"),
    [
        (OLD, ("avx2",), False),
        (WIDE, ("avx2", "avx512f"), False),
        (f"{WIDE} avx512_bf16", ("avx2", "avx512f", "avx512_bf16"), True),
        (f"{WIDE} amx_bf16 amx_tile amx_int8", ("avx2", "avx512f", "amx_tile", "amx_bf16"), True),
        (f"{WIDE} amx_tile amx_int8", ("avx2", "avx512f", "amx_tile"), False),
    ],
)
@pytest.mark.parametrize("maker", ["Intel(R) Xeon(R) CPU @ 2.10GHz", "AMD EPYC", "Somebody's"])
def test_capability_and_not_the_name_decides(core, maker, flags, features, bf16):
    core(CORE.format(name=maker, family=6, model=143, flags=flags))
    assert processor.features() == features
    assert processor.multiplies_bf16() is bf16


def test_names_tell_generations_apart_and_are_plain_in_file_names(core):
    core(CORE.format(name="AMD  EPYC", family=26, model=2, flags=WIDE))
    assert processor.name() == "AMD EPYC, family 26, model 2"
    assert processor.short_name() == "amd-epyc-26-2"
    core(CORE.format(name="Intel(R) Xeon(R) CPU @ 2.10GHz", family=6, model=143, flags=WIDE))
    assert processor.short_name() == "intel-xeon-6-143"
    core("processor : 0\nFeatures : fp asimd sve bf16\n")
    assert processor.features() == ("sve", "bf16")


def test_where_linux_says_nothing_torch_is_asked(core, monkeypatch):
    core(None)
    known = {"avx512_f": True, "avx2": True, "amx_bf16": False, "avx512_bf16": True, "cpu_name": "X"}
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: known, raising=False)
    assert processor.features() == ("avx2", "avx512f", "avx512_bf16")
    assert processor.multiplies_bf16()
    monkeypatch.delattr(torch.cpu, "get_capabilities")
    assert processor.features() == ()
    assert not processor.multiplies_bf16()
    assert processor.name()
