"""`kubectl discoveryflow`: flows, their questions and their results from a shell.

Resources are read and changed straight through Kubernetes with the kubeconfig, so that RBAC and the
admission policy decide; only bulk data (mappings, files, uploads) goes to the user API.
"""
