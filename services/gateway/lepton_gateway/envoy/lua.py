"""The few decisions that Envoy has no setting for, as its Lua filters."""

from __future__ import annotations

__all__ = [
    "JSON_ERRORS",
    "LOCAL_STATUS",
    "MODEL_HEADER",
    "MODEL_NAME",
    "STATUS",
    "WANTED_VERSION_HEADER",
]

MODEL_HEADER = "lepton-model"
WANTED_VERSION_HEADER = "lepton-wanted-version"


# The model's name is field 1 of every message of the protocol that names one, and so its first
# bytes: after gRPC's flag and length (5 bytes) comes the tag 10, a varint length and the text.
# The version, where one is named, is field 2 (tag 18) and follows it.
# Of the two messages that load and unload, Triton's clients put the name into field 2 (tag 18).
# What cannot be read has no name, and the fallback says so.
MODEL_NAME = f"""
local MESSAGE_START = 6

local function text_at(body, at, tag)
  if body:byte(at) ~= tag then return nil end
  local length, scale = 0, 1
  repeat
    at = at + 1
    local part = body:byte(at)
    if part == nil then return nil end
    length = length + (part % 128) * scale
    scale = scale * 128
  until part < 128 or scale > 65536
  return body:sub(at + 1, at + length), at + length + 1
end

function envoy_on_request(handle)
  handle:headers():remove("{MODEL_HEADER}")
  handle:headers():remove("{WANTED_VERSION_HEADER}")
  local buffer = handle:body()
  if buffer == nil or buffer:length() < MESSAGE_START then return end
  local head = buffer:getBytes(0, math.min(buffer:length(), 512))
  if head:byte(1) ~= 0 then
    handle:respond(
      {{[":status"] = "501", ["lepton-grpc-status"] = "12"}},
      "a compressed message needs the header grpc-encoding")
    return
  end
  local name, rest = text_at(head, MESSAGE_START, 10)
  if name ~= nil and name:find("^[a-z0-9_-]+$") then
    handle:headers():replace("{MODEL_HEADER}", name)
    local version = text_at(head, rest, 18)
    if version ~= nil and version:find("^[0-9]+$") then
      handle:headers():replace("{WANTED_VERSION_HEADER}", version)
    end
    handle:clearRouteCache()
  end
end
"""

# In front of the bridge, so after it on the way back. The bridge makes `grpc-status` of the HTTP
# status; the inference server says it more exactly, and with a text. An answer without a body,
# which nothing bridged, becomes gRPC's form of it: trailers only.
STATUS = """
function envoy_on_response(handle)
  local headers = handle:headers()
  local status = headers:get("lepton-grpc-status")
  if status == nil then return end
  local message = headers:get("lepton-grpc-message") or ""
  local details = headers:get("lepton-grpc-details")
  headers:remove("lepton-grpc-status")
  headers:remove("lepton-grpc-message")
  headers:remove("lepton-grpc-details")
  local target = handle:trailers()
  if target == nil then
    target = headers
    headers:replace(":status", "200")
    headers:replace("content-type", "application/grpc")
    headers:remove("content-length")
  end
  target:replace("grpc-status", status)
  target:replace("grpc-message", message)
  if details ~= nil then target:replace("grpc-status-details-bin", details) end
end
"""

# Behind the bridge. Envoy's own answers (no upstream, timed out, too large) are gRPC already,
# which the bridge would turn into UNKNOWN: this makes them look like the inference server's.
LOCAL_STATUS = """
function envoy_on_response(handle)
  local headers = handle:headers()
  local status = headers:get("lepton-grpc-status") or headers:get("grpc-status")
  if status == nil or headers:get("grpc-status") == nil then return end
  headers:replace("content-type", "application/x-protobuf")
  headers:replace("lepton-grpc-status", status)
  headers:replace("lepton-grpc-message", headers:get("grpc-message") or "")
  headers:replace("content-length", "0")
  headers:remove("grpc-status")
  headers:remove("grpc-message")
end
"""

# The transcoder answers errors as google.rpc.Status in JSON. Every other error of this address
# has its text under "error", so these get it there too.
JSON_ERRORS = """
function envoy_on_response(handle)
  local headers = handle:headers()
  local status = tonumber(headers:get(":status") or "")
  if status == nil or status < 400 then return end
  local buffer = handle:body()
  if buffer == nil or buffer:length() == 0 then return end
  local text, count = buffer:getBytes(0, buffer:length()):gsub(
    '^{"code":(%d+),"message":', '{"code":%1,"error":', 1)
  if count == 0 then return end
  handle:headers():replace("content-length", tostring(buffer:setBytes(text)))
end
"""
