"""Brings up and takes down the Kubernetes cluster that demo and tests run on."""
