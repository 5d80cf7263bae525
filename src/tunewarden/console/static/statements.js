// The forms of statements and of disclosures (R1 to R7, R21; version 1 is read for ever).

import { parseLogKey } from "./note.js";
import { flag, hex, identifier, integer, isObject, listOf, nullable, objectOf, oneOf, text, time } from "./readers.js";

const STATEMENT_TYPE = "https://in-toto.io/Statement/v1";
const PREFIX = "https://tunewarden.dev/";
const AUDIT_DIGEST = `${PREFIX}audit-digest/v2`;
export const HAND_OVER = `${PREFIX}log-key-hand-over/v2`;
// What is numbered, and about no artifact, discloses nothing: what the name of its subject begins with.
const NUMBERED = { [AUDIT_DIGEST]: "audit-digest-", [HAND_OVER]: "log-key-hand-over-" };
const LIST = objectOf({ count: integer, root: hex });
const WORKER = objectOf({ worker: identifier, how: oneOf("released", "killed", "gone") });
const SEALED_BLOBS = objectOf({ count: integer, sizeBytes: integer });
const EXPORT = objectOf({ exportedAt: time, exportedBy: identifier });
const KEY = objectOf({
  id: identifier,
  shard: identifier,
  generationBefore: integer,
  generationAfter: integer,
  method: text,
  assurance: text,
});
const TIMES = { requestedAt: time, committedAt: time, fencedAt: time, evictedAt: time, keyErasedAt: time };

const DELETION = objectOf({
  deletionId: identifier,
  commitments: objectOf({ artifactId: hex, organizationId: hex, requestedBy: hex, blobs: hex }),
  ...TIMES,
  epoch: integer,
  hosts: LIST,
  fence: LIST,
  engines: LIST,
  exports: nullable(LIST),
  lineage: nullable(LIST),
  key: KEY,
  memory: oneOf("not_checked", "unswappable", "swappable", "swap_accepted"),
  residuals: listOf(text),
  software: text,
});
const ENGINE_1 = objectOf({
  engine: identifier,
  how: oneOf("evicted", "not_running", "restarted"),
  aborted: integer,
  zeroed: flag,
});
const DELETION_1 = objectOf({
  deletionId: identifier,
  organizationId: identifier,
  internalId: identifier,
  requestedBy: identifier,
  ...TIMES,
  epoch: integer,
  fence: listOf(WORKER),
  engines: listOf(ENGINE_1),
  key: KEY,
  blobs: SEALED_BLOBS,
  residuals: listOf(text),
  software: text,
});
const PREDICATES = {
  [`${PREFIX}model-deletion/v2`]: DELETION,
  [`${PREFIX}file-deletion/v2`]: DELETION,
  [`${PREFIX}blobs-erased/v2`]: objectOf({
    deletionId: identifier,
    erased: hex,
    erasedAt: time,
    failures: LIST,
    software: text,
  }),
  [`${PREFIX}model-export/v2`]: objectOf({
    exportId: identifier,
    artifactId: hex,
    organizationId: hex,
    exported: hex,
    exportedAt: time,
    software: text,
  }),
  [`${PREFIX}deletion-case/v2`]: objectOf({
    artifactId: nullable(hex),
    organizationId: hex,
    requestedBy: hex,
    count: integer,
    hidden: integer,
    requestedAt: time,
    finishedAt: time,
    software: text,
  }),
  [AUDIT_DIGEST]: objectOf({ sequence: integer, digestedAt: time, software: text }),
  [HAND_OVER]: objectOf({
    sequence: integer,
    previousKey: text,
    previousKeyId: hex,
    newKey: text,
    handedOverAt: time,
    software: text,
  }),
  [`${PREFIX}model-deletion/v1`]: DELETION_1,
  [`${PREFIX}file-deletion/v1`]: DELETION_1,
  [`${PREFIX}blobs-erased/v1`]: objectOf({
    deletionId: identifier,
    erasedAt: time,
    count: integer,
    versions: integer,
    sizeBytes: integer,
    failures: listOf(identifier),
    software: text,
  }),
};

// Check that a parsed statement is exactly of one of the formats; return whether it commits to values (version 2).
export async function checkStatement(statement) {
  const accept = () => {};
  const kinds = Object.keys(PREDICATES);
  objectOf({
    _type: oneOf(STATEMENT_TYPE),
    predicateType: oneOf(...kinds),
    subject: listOf(accept),
    predicate: accept,
  })(statement);
  const { predicateType, subject, predicate } = statement;
  const commits = predicateType.endsWith("/v2") && !Object.hasOwn(NUMBERED, predicateType);
  if (subject.length !== 1) throw new Error("a statement has one subject");
  objectOf({ name: identifier, digest: objectOf({ [commits ? "hmacSha256" : "sha256"]: hex }) })(subject[0]);
  PREDICATES[predicateType](predicate);
  if (Object.hasOwn(NUMBERED, predicateType)) {
    const name = `${NUMBERED[predicateType]}${predicate.sequence}`;
    if (subject[0].name !== name) throw new Error("a subject has another number");
  }
  if (predicateType === HAND_OVER) await handedOver(statement);
  return commits;
}

// The two keys of a hand-over's statement; throws if a fingerprint is not that of its key, or nothing changes.
export async function handedOver({ subject, predicate }) {
  const previous = await parseLogKey(predicate.previousKey);
  const next = await parseLogKey(predicate.newKey);
  if (previous.keyId !== predicate.previousKeyId || next.keyId !== subject[0].digest.sha256) {
    throw new Error("a fingerprint is not that of its key");
  }
  if (previous.name === null || previous.name !== next.name || previous.keyId === next.keyId) {
    throw new Error("a hand-over is between two keys of one log");
  }
  return { previous, next };
}

const DISCLOSURE = {
  salt: hex,
  artifactId: identifier,
  organizationId: identifier,
  requestedBy: identifier,
  manifestSha256: hex,
  blobs: SEALED_BLOBS,
  hosts: listOf(objectOf({ host: identifier, how: oneOf("acknowledged", "lease_ended") })),
  fence: listOf(WORKER),
  engines: listOf(
    objectOf({
      engine: identifier,
      how: oneOf("zeroed", "not_loaded", "restarted", "lease_ended"),
      aborted: integer,
    }),
  ),
  exports: listOf(EXPORT),
  lineage: listOf(identifier),
  erased: objectOf({ count: integer, versions: integer, sizeBytes: integer }),
  failures: listOf(identifier),
  exported: EXPORT,
};

// Check the form of a disclosure: the salt and any of the values.
export function checkDisclosureForm(value) {
  const names = isObject(value) ? Object.keys(value) : [];
  if (!names.includes("salt") || !names.every((name) => Object.hasOwn(DISCLOSURE, name))) {
    throw new Error("a disclosure has other members than this format");
  }
  for (const name of names) DISCLOSURE[name](value[name]);
}

const LISTS = ["hosts", "fence", "engines", "exports", "lineage", "failures"];
export const isList = (name) => LISTS.includes(name);

// Whether a statement is the summary of a case.
export const isCase = ({ predicateType }) => predicateType === `${PREFIX}deletion-case/v2`;

// Everything that a statement of version 2 commits to, by the disclosure's member. What it is silent about is absent.
export function committed({ predicateType, subject, predicate }) {
  const digest = subject[0].digest.hmacSha256;
  // The summary of a case has the root over its members there, which no salted value explains.
  if (isCase({ predicateType })) {
    const { artifactId, organizationId, requestedBy } = predicate;
    return { artifactId, organizationId, requestedBy };
  }
  const { commitments, artifactId, organizationId, exported, erased, failures } = predicate;
  if (predicateType === `${PREFIX}blobs-erased/v2`) return { manifestSha256: digest, erased, failures };
  if (predicateType === `${PREFIX}model-export/v2`) {
    return { manifestSha256: digest, artifactId, organizationId, exported };
  }
  const { hosts, fence, engines, exports, lineage } = predicate;
  return { manifestSha256: digest, ...commitments, hosts, fence, engines, exports, lineage };
}
