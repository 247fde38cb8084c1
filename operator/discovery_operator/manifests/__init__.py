"""Pure builders of the Kubernetes objects that the operator creates."""
