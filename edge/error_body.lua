-- Runs on answers to HTTP/JSON requests alone (edge/routes.py), after the transcoder has turned them into HTTP.
-- An error of the router comes as headers without a body: its trailers, with OpenAI's error object among them.
-- The header_mutation filter, which is next, removes what was read here.

function envoy_on_response(handle)
  local headers = handle:headers()
  -- Absent on a stream, whose status follows in the trailers, and on Envoy's own replies.
  local code = headers:get("grpc-status")
  if code == nil or code == "0" then
    return
  end
  local status = headers:get("x-weir-http-status") or headers:get(":status")
  -- A status without our object is a gRPC library's word: its text may name what is none of the client's business.
  local generic = handle:filterContext()
  local object = headers:get("x-weir-error") or generic:get(status) or generic:get("500")
  -- `true`: also where the answer has no body yet.
  handle:body(true):setBytes(object)
  headers:replace(":status", status)
  headers:replace("content-type", "application/json")
  headers:replace("content-length", tostring(#object))
end
