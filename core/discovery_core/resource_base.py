"""What every model of the resource shares: its way of writing names, and references to keys."""

from __future__ import annotations

from pydantic import BaseModel, ConfigDict, Field
from pydantic.alias_generators import to_camel

from .resource_text import DataKey, ObjectName


class ResourceModel(BaseModel):
    """camelCase in YAML. Unknown fields are ignored: the API server has pruned them."""

    model_config = ConfigDict(alias_generator=to_camel, populate_by_name=True, extra="ignore")


class ConfigMapKey(ResourceModel):
    """A key of a ConfigMap in the flow's namespace."""

    name: ObjectName = Field(description="Name of the ConfigMap.")
    key: DataKey = Field(description="Key in the ConfigMap, for example servers.csv.")


class SecretKey(ResourceModel):
    """A key of a Secret in the flow's namespace."""

    name: ObjectName = Field(description="Name of the Secret.")
    key: DataKey = Field(description="Key in the Secret, for example api-key.")
