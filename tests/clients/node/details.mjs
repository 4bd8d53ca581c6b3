// Reads google.rpc details of an error: the messages that Weir sends, with the names and numbers of google/rpc/*.proto.
import protobuf from 'protobufjs';

const { root } = protobuf.parse(`
  syntax = "proto3";
  package google.rpc;
  message Any { string type_url = 1; bytes value = 2; }
  message Status { int32 code = 1; string message = 2; repeated Any details = 3; }
  message Duration { int64 seconds = 1; int32 nanos = 2; }
  message ErrorInfo { string reason = 1; string domain = 2; map<string, string> metadata = 3; }
  message RetryInfo { Duration retry_delay = 1; }
  message QuotaFailure {
    message Violation { string subject = 1; string description = 2; }
    repeated Violation violations = 1;
  }
  message BadRequest {
    message FieldViolation { string field = 1; string description = 2; }
    repeated FieldViolation field_violations = 1;
  }
`);
const status = root.lookupType('google.rpc.Status');
const known = ['ErrorInfo', 'RetryInfo', 'QuotaFailure', 'BadRequest'];

// Details by name, such as { ErrorInfo: { reason: 'RATE_LIMITED', domain: 'weir' } }, of pairs of type and bytes.
export function decoded(pairs) {
  const found = {};
  for (const [type, value] of pairs) {
    const name = type.split('.').pop();
    const kind = known.includes(name) && root.lookupType(`google.rpc.${name}`);
    if (kind) found[name] = kind.toObject(kind.decode(value), { longs: Number });
  }
  return found;
}

// The same of a grpc-js ServiceError.
export function details(error) {
  const [packed] = error.metadata.get('grpc-status-details-bin');
  return decoded(status.decode(packed).details.map(({ typeUrl, value }) => [typeUrl, value]));
}
