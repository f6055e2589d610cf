"""The files for Slurm and Kubernetes are whole, and call the command with options that it has."""

import re
import shutil
import subprocess

import pytest
import yaml
from repository import ROOT

from hyperscale.run.config.schema import RunConfig

FOLDER = ROOT / "docs" / "cluster"


def options_of(text):
    return set(re.findall(r"--[a-z][a-z-]+", text.split("hyperscale run", 1)[1]))


def known():
    names = {f"--{name.replace('_', '-')}" for name in RunConfig.model_fields}
    return names | {"--method", "--task", "--length", "--cr", "--seed", "--out"}


@pytest.mark.skipif(shutil.which("bash") is None, reason="no bash")
def test_the_file_for_slurm_can_be_read_by_the_shell():
    subprocess.run(["bash", "-n", FOLDER / "slurm.sh"], check=True)
    text = (FOLDER / "slurm.sh").read_text()
    assert options_of(text) <= known()
    usage = next(line for line in text.splitlines() if "sbatch docs" in line)
    assert set(re.findall(r"--[a-z][a-z-]+", usage)) <= known()


def test_the_file_for_kubernetes_is_a_job_with_a_head_and_workers():
    (job,) = yaml.safe_load_all((FOLDER / "kuberay.yaml").read_text())
    assert (job["apiVersion"], job["kind"]) == ("ray.io/v1", "RayJob")
    assert options_of(job["spec"]["entrypoint"]) <= known()
    cluster = job["spec"]["rayClusterSpec"]
    for group in (cluster["headGroupSpec"], *cluster["workerGroupSpecs"]):
        pod = group["template"]["spec"]
        volumes = {volume["name"] for volume in pod["volumes"]}
        for container in pod["containers"]:
            assert {mount["name"] for mount in container["volumeMounts"]} <= volumes
            assert container["resources"]["limits"]
