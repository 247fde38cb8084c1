"""Headers become the same words whatever their spelling, language or abbreviation."""

from __future__ import annotations

import pytest
from discovery_crews.mapping.text import TextIndex
from discovery_crews.mapping.tokens import plain, skeleton, words_of
from discovery_crews.target_schema import TargetField, TargetSchema


@pytest.mark.parametrize("header", [
    "IPAddress", "ip_addr", "IP-Adresse", "Dirección IP", "Endereço IP", "adresse ip", "IP ADDR",
    "ipaddress", "IPAddresses",
])  # fmt: skip
def test_spellings_of_ip_address(header: str) -> None:
    assert set(words_of(header).words) == {"ip", "address"}


@pytest.mark.parametrize("header", [
    "Operating System", "Betriebssystem", "Système d'exploitation", "Sistema Operativo",
    "SISTEMA OPERACIONAL", "OS",
])  # fmt: skip
def test_spellings_of_operating_system(header: str) -> None:
    assert words_of(header).words == ("os",)


@pytest.mark.parametrize(("header", "words"), [
    ("Festplattenkapazität (GB)", ("disk", "capacity")),
    ("Arbeitsspeicherauslastung", ("memory", "usage")),
    ("servername", ("server", "name")),
    ("Kundennummer", ("customer", "number")),
    ("Serial #", ("serial", "number")),
    ("S/N", ("serial", "number")),
    ("VMName", ("vm", "name")),
    ("OSname", ("os", "name")),
    ("vCPUs", ("core",)),
    ("Network in (Mbps)", ("network", "received")),
    ("Memory in MB", ("memory",)),
])  # fmt: skip
def test_words(header: str, words: tuple[str, ...]) -> None:
    assert words_of(header).words == words


@pytest.mark.parametrize(("header", "unit"), [
    ("Memory (MB)", "MB"), ("RAM (Go)", "GB"), ("MemoryGiB", "GiB"), ("CpuMHz", "MHz"),
    ("Takt [GHz]", "GHz"), ("CPU usage %", "%"), ("ReadMBps", "MB/s"), ("Read MB/s", "MB/s"),
    ("DiskReadsPerSecondInKB", "KB/s"), ("Go live", None), ("Memory", None),
])  # fmt: skip
def test_units(header: str, unit: str | None) -> None:
    assert words_of(header).unit == unit


def test_a_word_of_two_languages_has_two_readings() -> None:
    readings = words_of("Nombre de cœurs").readings
    assert ("number", "core") in readings
    assert ("name", "core") in readings


def test_the_end_of_a_dotted_name_is_a_reading() -> None:
    assert ("vm", "name") in words_of("VMware.VMName").readings


def test_plain_letters() -> None:
    assert plain("Größe ÄÖÜ Éß ñ œ") == "groesse aeoeue ess n oe"
    assert skeleton("warranty") == "wrnty"


def index() -> TextIndex:
    return TextIndex(
        TargetSchema(
            fields=(
                TargetField(name="age_at_diagnosis", description="age in years when diagnosed"),
                TargetField(name="tumor_grade", description="degree of abnormality of the cells"),
                TargetField(name="vital_status", description="whether the patient is alive"),
                TargetField(name="warranty", synonyms=("guarantee",)),
            )
        )
    )


@pytest.mark.parametrize(("header", "field"), [
    ("AgeAtDiagnosis", 0), ("diagnosis age", 0), ("Tumour Grade", 1), ("grade", 1),
    ("patient alive", 2), ("wrnty", 3), ("Garantie", 3), ("warrnty", 3),
])  # fmt: skip
def test_a_header_finds_its_field(header: str, field: int) -> None:
    scores = index().scores(header)
    assert max(scores, key=lambda number: scores[number].score) == field


def test_exact_names_score_highest_and_strangers_nothing() -> None:
    assert index().scores("tumor_grade")[1].score == 1.0
    assert index().scores("printer colour") == {}
    assert index().scores("") == {}


@pytest.mark.parametrize(("header", "information"), [
    ("Column 7", 0.0), ("F3", 0.0), ("Unnamed: 12", 0.0), ("x", 0.0), ("grade", 1.0),
    ("printer", 0.5),
])  # fmt: skip
def test_how_much_a_header_says(header: str, information: float) -> None:
    assert index().information(header) == information
