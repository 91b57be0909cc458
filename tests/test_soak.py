"""Each campaign of ``make soak`` runs, and a trial of it that fails is reported."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from soak.__main__ import CAMPAIGNS

pytestmark = pytest.mark.slow

TESTS = Path(__file__).parent


def run(*command):
    paths = [str(TESTS), *([os.environ["PYTHONPATH"]] if "PYTHONPATH" in os.environ else [])]
    env = {**os.environ, "PYTHONPATH": os.pathsep.join(paths)}
    return subprocess.run([sys.executable, *command], env=env, capture_output=True, text=True, check=False)  # noqa: S603


@pytest.mark.parametrize("campaign", CAMPAIGNS, ids=lambda campaign: campaign.name)
def test_a_campaign_tries_something_and_finds_nothing(campaign):
    if campaign.needs:
        pytest.importorskip(campaign.needs)
    done = run("-m", f"soak.{campaign.name}", "0", "1")
    told = json.loads(done.stdout.splitlines()[-1])
    assert told["failure"] is None, told["failure"]
    assert told["trials"] >= 1
    assert told["operations"] >= 1


def test_a_trial_that_fails_is_reported_with_its_seed():
    code = "from soak import campaign\ndef trial(seed):\n    raise AssertionError('broken')\ncampaign.main(trial)"
    done = run("-c", code, "0", "7")
    assert done.returncode == 1
    assert json.loads(done.stdout)["failure"].startswith("seed 7: ")


def test_every_campaign_is_in_the_table():
    names = {path.stem for path in (TESTS / "soak").glob("*.py")} - {"__init__", "__main__", "campaign"}
    assert names == {campaign.name for campaign in CAMPAIGNS}
