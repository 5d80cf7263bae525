"""JSON representations of objects, for the API and the command line."""

from collections.abc import Sequence

from msgspec import UNSET

from tunewarden.api import alias_schemas, case_views, deletion_schemas, schemas
from tunewarden.artifacts.base_facts import BaseFacts
from tunewarden.deletion.blockers import BlockerType
from tunewarden.deletion.plan import Plan
from tunewarden.deletion.protocol import Stage
from tunewarden.deletion.records import Deletion
from tunewarden.engines.adapter_states import EngineOfModel
from tunewarden.registry.alias_rows import Alias, AliasVersion
from tunewarden.registry.artifacts import ArtifactKind, State
from tunewarden.registry.bases import Base, OtherName
from tunewarden.registry.file_rows import File
from tunewarden.registry.holds import Hold
from tunewarden.registry.lineage import Origin
from tunewarden.registry.models import Model
from tunewarden.registry.upload_parts import Part
from tunewarden.registry.upload_rows import Upload
from tunewarden.registry.usage import ModelUse

NO_ORIGIN = Origin()
# Clients see three states: in progress, deleted (D8), erased (D9).
STATUS: dict[Stage, schemas.DeletionStatus] = {
    **dict.fromkeys(Stage, "deleting"),
    Stage.DELETED: "deleted",
    Stage.ERASED: "erased",
}


def base_object(base: Base, facts: BaseFacts | None = None) -> schemas.Model:
    """Return a base as OpenAI's Model, with what is known of it."""
    shown = schemas.Model(
        id=base.name,
        object="model",
        created=base.created_at // 1_000_000,
        owned_by="system",
    )
    return _with_facts(shown, facts)


def other_name_object(named: OtherName, facts: BaseFacts | None = None) -> schemas.Model:
    """Return a base under another name of it: `root` is its own."""
    shown = base_object(named.base, facts)
    shown.id, shown.root = named.name, named.base.name
    return shown


def model_object(
    model: Model, organization_name: str, facts: BaseFacts | None = None
) -> schemas.Model:
    """Return a fine-tuned model as OpenAI's Model, with its base, what is known of that, and whether it is archived."""
    shown = schemas.Model(
        id=model.id,
        object="model",
        created=model.created_at // 1_000_000,
        owned_by=organization_name,
        root=model.base,
        archived=model.state is State.ARCHIVED,
        protected=model.is_protected,
    )
    return _with_facts(shown, facts)


def engines_object(found: Sequence[EngineOfModel]) -> schemas.Listing[schemas.EngineOfModel]:
    """Return a model's state in each engine."""
    shown = [
        schemas.EngineOfModel("model.engine", one.engine, one.state, one.reason) for one in found
    ]
    return schemas.Listing("list", shown, has_more=False)


def usage_object(model_id: str, found: ModelUse) -> schemas.ModelUsage:
    """Return how a model was used."""
    last = found.last_used_at
    return schemas.ModelUsage(
        object="model.usage",
        model=model_id,
        last_used_at=None if last is None else last // 1_000_000,
        requests_last_hour=found.requests_last_hour,
        requests_last_day=found.requests_last_day,
    )


def _with_facts(shown: schemas.Model, facts: BaseFacts | None) -> schemas.Model:
    if facts is not None:
        shown.capabilities = list(facts.capabilities)
        if facts.context is not None:
            shown.max_model_len = facts.context
    return shown


def file_object(file: File, origin: Origin = NO_ORIGIN) -> schemas.File:
    """Return a file as OpenAI's File. Its checks are done before it is there, or by a job.

    What it was made from is shown where there is something to show.
    """
    shown = schemas.File(
        id=file.id,
        object="file",
        bytes=file.bytes,
        created_at=file.created_at // 1_000_000,
        filename=file.filename,
        purpose=file.purpose,
        status="processed",
    )
    if file.expires_at is not None:
        shown.expires_at = file.expires_at // 1_000_000
    if origin.file_ids:
        shown.derived_from = list(origin.file_ids)
    if origin.source is not None:
        shown.source = origin.source
    return shown


def upload_object(upload: Upload, file: File | None) -> schemas.Upload:
    """Return an upload as OpenAI's Upload; with its file once completed."""
    return schemas.Upload(
        id=upload.id,
        object="upload",
        bytes=upload.bytes,
        created_at=upload.created_at // 1_000_000,
        filename=upload.filename,
        purpose=upload.purpose,
        status=upload.status.value,
        expires_at=upload.expires_at // 1_000_000,
        file=None if file is None else file_object(file),
    )


def part_object(part: Part, upload_id: str) -> schemas.Part:
    """Return one part of an upload as OpenAI's UploadPart."""
    return schemas.Part(
        id=part.id,
        object="upload.part",
        created_at=part.created_at // 1_000_000,
        upload_id=upload_id,
    )


def deletion_object(deletion: Deletion) -> deletion_schemas.Deletion:
    """Return a deletion. Times are Unix seconds with fractions; the time of a step that is not done yet is null."""
    is_model = deletion.kind == ArtifactKind.MODEL
    return deletion_schemas.Deletion(
        id=deletion.id,
        object=f"{deletion.kind}.deletion",
        parent=deletion.parent,
        status=STATUS[deletion.stage],
        requested_by=deletion.requested_by,
        requested_at=deletion.requested_at / 1_000_000,
        fenced_at=_seconds(deletion.fenced_at),
        evicted_at=_seconds(deletion.evicted_at),
        key_erased_at=_seconds(deletion.key_erased_at),
        logged_at=_seconds(deletion.logged_at),
        deleted_at=_seconds(deletion.deleted_at),
        blobs_erased_at=_seconds(deletion.blobs_erased_at),
        step_seconds={
            step.name.lower(): micros / 1_000_000 for step, micros in deletion.step_micros.items()
        },
        fence=deletion.fence_report or (),
        engines=deletion.evict_report or (),
        log_index=deletion.log_index,
        blobs_log_index=deletion.blobs_log_index,
        model=deletion.artifact_id if is_model else UNSET,
        file=UNSET if is_model else deletion.artifact_id,
    )


def plan_object(plan: Plan) -> deletion_schemas.DeletionPlan:
    """Return what a deletion would delete; `bytes` is the size of the sealed blobs."""
    is_model = plan.kind is ArtifactKind.MODEL
    return deletion_schemas.DeletionPlan(
        object="model.deletion_plan" if is_model else "file.deletion_plan",
        checkpoints=[checkpoint.id for checkpoint in plan.checkpoints],
        blobs=plan.blobs,
        bytes=plan.sealed_bytes,
        derived_files=list(plan.derived_files),
        aliases=plan.blocked_by(BlockerType.ALIAS),
        jobs=plan.blocked_by(BlockerType.JOB),
        exports=[
            deletion_schemas.Export(
                made.id, "model.export", model, made.exported_at / 1_000_000, made.exported_by
            )
            for model, made in plan.exports
        ],
        blockers=case_views.blocker_objects(plan.blockers),
        fingerprint=plan.fingerprint,
        model=plan.artifact.id if is_model else UNSET,
        file=UNSET if is_model else plan.artifact.id,
        learned=UNSET if plan.cascade is None else case_views.learned_object(plan.cascade),
    )


def alias_object(
    alias: Alias, history: Sequence[AliasVersion] | None = None
) -> alias_schemas.Alias:
    """Return an alias, with its history if that is given."""
    current = alias.current
    shown = alias_schemas.Alias(
        id=alias.name,
        object="alias",
        name=alias.name,
        created_at=alias.created_at // 1_000_000,
        version=current.version,
        targets=_targets(current),
        changed_by=current.changed_by,
        changed_at=current.changed_at // 1_000_000,
    )
    if history is not None:
        shown.history = [
            alias_schemas.AliasVersion(
                one.version, _targets(one), one.changed_by, one.changed_at // 1_000_000
            )
            for one in history
        ]
    return shown


def aliased_object(alias: Alias, organization_name: str) -> schemas.Model:
    """Return an alias as OpenAI's Model; `alias_of` names the models that it points to."""
    return schemas.Model(
        id=alias.name,
        object="model",
        created=alias.created_at // 1_000_000,
        owned_by=organization_name,
        alias_of=[one.model_id for one in alias.current.targets],
    )


def _targets(version: AliasVersion) -> list[alias_schemas.AliasTarget]:
    return [alias_schemas.AliasTarget(one.model_id, one.weight) for one in version.targets]


def hold_object(hold: Hold) -> deletion_schemas.Hold:
    """Return a hold."""
    is_model = hold.kind is ArtifactKind.MODEL
    return deletion_schemas.Hold(
        id=hold.id,
        object="hold",
        in_force=hold.lifted_at is None,
        reason=hold.reason,
        placed_by=hold.placed_by,
        placed_at=hold.placed_at // 1_000_000,
        lifted_by=hold.lifted_by,
        lifted_at=None if hold.lifted_at is None else hold.lifted_at // 1_000_000,
        model=hold.artifact_id if is_model else UNSET,
        file=UNSET if is_model else hold.artifact_id,
    )


def _seconds(micros: int | None) -> float | None:
    return None if micros is None else micros / 1_000_000
