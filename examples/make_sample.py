"""Writes the sample inventory: synthetic, the same on every run, and dirty in the usual ways.

Real exports mix units, date formats and spellings, repeat machines under another case, hold
placeholders, blank lines, a total at the end and rows with a cell too many. A demo on tidy data
would show nothing, and real data must not be published; so this file makes some up.

`python examples/make_sample.py` writes servers.csv and sample.yaml (the same data in a ConfigMap,
with the DiscoveryFlow that reads it); `--check` fails when they differ.
"""

from __future__ import annotations

import argparse
import csv
import io
import random
import sys
from pathlib import Path

HERE = Path(__file__).parent
SEED = 20260401
ASSETS = 240

HEADER = (
    "Server Name",
    "FQDN",
    "IP Address",
    "Operating System",
    "vCPU",
    "Memory",
    "Disk (GB)",
    "Env",
    "Application",
    "Owner e-mail",
    "Location",
    "Status",
    "In service since",
    "Serial No.",
    "Virtual?",
    "Remarks",
)
SYSTEMS = (
    "Red Hat Enterprise Linux 8.9",
    "RHEL 7.9",
    "Ubuntu 22.04 LTS",
    "Debian GNU/Linux 12",
    "Windows Server 2012 R2 Standard",
    "Microsoft Windows Server 2019 Datacenter",
    "SUSE Linux Enterprise Server 15 SP5",
    "AIX 7.2",
)
APPLICATIONS = (
    ("erp", "SAP ERP"),
    ("crm", "Customer portal"),
    ("hr", "Payroll"),
    ("wms", "Warehouse management"),
    ("bi", "Reporting"),
    ("mail", "Exchange"),
    ("file", "File services"),
    ("mon", "Monitoring"),
)
ROLES = ("web", "app", "db", "batch")
ENVIRONMENTS = (
    ("prd", ("Production", "PROD", "prod", "Prd")),
    ("tst", ("Test", "TEST", "tst")),
    ("dev", ("Development", "dev", "DEV ")),
)
PLACES = ("Frankfurt DC1", "Frankfurt DC2", "München", "Łódź, Hall 2")
STATUSES = ("In use", "in use", "Active", "Powered off", "Retired")
MISSING = ("", "N/A", "-", "unknown", "TBD", "n/a")


def _memory(rng: random.Random, gigabytes: int) -> str:
    return rng.choice((f"{gigabytes} GB", f"{gigabytes}GB", f"{gigabytes * 1024} MB"))


def _date(rng: random.Random) -> str:
    year, month, day = rng.randint(2012, 2025), rng.randint(1, 12), rng.randint(13, 28)
    return rng.choice(
        (f"{year}-{month:02}-{day:02}", f"{day:02}.{month:02}.{year}", f"{month}/{day}/{year}")
    )


def _asset(rng: random.Random, number: int) -> list[str]:
    short, application = APPLICATIONS[number % len(APPLICATIONS)]
    role = ROLES[(number // len(APPLICATIONS)) % len(ROLES)]
    code, spellings = rng.choice(ENVIRONMENTS)
    name = f"{code}-{short}-{role}{number:03}"
    physical = number % 17 == 0
    return [
        name,
        f"{name}.corp.example.org",
        f"10.{20 + number // 120}.{number // 40}.{10 + number % 40}",
        rng.choice(SYSTEMS),
        str(rng.choice((1, 2, 4, 8, 16))),
        _memory(rng, rng.choice((4, 8, 16, 32, 64, 128))),
        str(rng.choice((40, 80, 100, 250, 500, 1024))),
        rng.choice(spellings),
        application,
        f"{rng.choice(('ann', 'bob', 'eve', 'dan'))}@example.org",
        rng.choice(PLACES),
        rng.choice(STATUSES),
        _date(rng),
        f"SN{rng.randint(10**7, 10**8 - 1)}",
        rng.choice(("no", "N")) if physical else rng.choice(("yes", "Y", "TRUE")),
        rng.choice(("", "", "", "to be migrated", "see ticket 4711", "owner left the company")),
    ]


def _soil(rng: random.Random, row: list[str]) -> None:
    """Make one row dirty, in place."""
    column = rng.choice((3, 4, 5, 6, 8, 9, 10, 12, 13))
    row[column] = rng.choice(MISSING)
    if rng.random() < 0.2:
        row[0] = f"  {row[0]} "
    if rng.random() < 0.05:
        row[2] = "10.20.300.1"


def rows() -> list[list[str]]:
    """The data rows, dirt included."""
    rng = random.Random(SEED)
    assets = [_asset(rng, number) for number in range(ASSETS)]
    result = []
    for number, row in enumerate(assets):
        if rng.random() < 0.25:
            _soil(rng, row)
        result.append(row)
        if number % 30 == 29:
            # the same machine again, from another team's list
            again = list(rng.choice(assets[:number]))
            again[0] = again[0].strip().upper()
            again[15] = "from the network team's list"
            result.append(again)
        if number in {57, 143}:
            result.append([])
        if number in {88, 171, 203}:
            result[-1] = [*row, "moved from rack 12", "?"]
    result.append(["Total", "", "", "", "", "", "", "", "", "", "", "", "", "", "", str(ASSETS)])
    return result


def table() -> str:
    """The CSV as a spreadsheet in a country with a decimal comma would export it."""
    text = io.StringIO()
    writer = csv.writer(text, delimiter=";", lineterminator="\n")
    writer.writerow(HEADER)
    writer.writerows(rows())
    return text.getvalue()


def manifest() -> str:
    """A ConfigMap with the table, and the DiscoveryFlow that reads it."""
    data = "".join(f"    {line}".rstrip() + "\n" for line in table().splitlines())
    return f"""\
# Written by make_sample.py: a synthetic inventory and the flow that imports it.
#   kubectl apply -f examples/sample.yaml
#   kubectl wait dflow/sample --for=condition=AwaitingApproval --timeout=10m
apiVersion: v1
kind: ConfigMap
metadata:
  name: sample-inventory
data:
  servers.csv: |
{data}---
apiVersion: discoveryflow.dev/v1alpha1
kind: DiscoveryFlow
metadata:
  name: sample
spec:
  engagement: sample-data-centre
  source:
    configMap: {{name: sample-inventory, key: servers.csv}}
"""


def main() -> int:
    """Write or check the two files; returns the exit status."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--check", action="store_true", help="write nothing, fail on a difference")
    check = parser.parse_args().check
    # a byte order mark, as Excel writes it
    wanted = {HERE / "servers.csv": "\ufeff" + table(), HERE / "sample.yaml": manifest()}
    stale = [
        path
        for path, text in wanted.items()
        if not path.exists() or path.read_text(encoding="utf-8") != text
    ]
    for path in stale:
        if check:
            sys.stderr.write(f"{path} differs: run python examples/make_sample.py\n")
        else:
            path.write_text(wanted[path], encoding="utf-8")
            sys.stdout.write(f"wrote {path}\n")
    return 1 if check and stale else 0


if __name__ == "__main__":
    sys.exit(main())
