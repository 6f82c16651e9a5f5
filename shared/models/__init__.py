"""The registry's tables. Each docstring names the writers; times are UTC with time zone."""

from shared.models.access import ApiKey, CredentialRead, Refusal
from shared.models.base import Base, RawJson
from shared.models.connections import (
    Connection,
    ConnectionStatus,
    EventRow,
    JobHistory,
    JobStarter,
    SyncCatalogVersion,
    TimelineEvent,
    VersionOrigin,
)
from shared.models.connectors import SavedState, SourceConnector
from shared.models.credentials import CredentialVersionRow
from shared.models.health import ConnectionHealth
from shared.models.observations import DiscoveryRow, Drift, Observation, SettingChange, Watch
from shared.models.operations import ImportItem, OperationRow, OperationStatus, PeriodicRun
from shared.models.repairs import (
    Knowledge,
    Plan,
    Policy,
    PolicyLayerRow,
    Repair,
    RepairState,
)
from shared.models.snapshots import Snapshot, StreamSchema
from shared.models.trials import SourceTrial
from shared.models.volumes import SyncVolume
from shared.models.webhooks import DeliveryState, Webhook, WebhookDelivery
