"""What crew pods and the execution API say to each other.

One protocol serves a Job made for one attempt today and worker Jobs that lease attempts later:
`claim` names the attempt and returns its fence, and every later call carries that fence. Fields
are only ever added, because a crew image may be older than the API it talks to.

Routes (all below `/execution/v1`, `Authorization: Bearer <projected ServiceAccount token>`):

| call | body → answer |
|---|---|
| `POST /claim` | `ClaimRequest` → `Claim` |
| `POST /heartbeat` | `Heartbeat` → `HeartbeatAnswer` |
| `POST /inputs` | `PinInputs` → `PinnedInputs` |
| `PUT /artefacts?fence=N&mediaType=T` | byte stream → `ArtefactReference` |
| `GET /artefacts/{digest}?fence=N` | → byte stream |
| `PUT /records?fence=N` | NDJSON stream of `InventoryRecord` → `RecordsAnswer` |
| `POST /complete` | `Complete` → `Accepted` |
| `POST /fail` | `Fail` → `Accepted` |

Errors are RFC 9457 problems. 401: the token is not accepted; 403: the pod is nobody's attempt;
409 `type: …/superseded`: another attempt or pod has taken over, stop and exit 0; 425
`…/not-launched`: the operator has not recorded the Job yet, try again in a moment; 503: try
again with backoff.
"""
