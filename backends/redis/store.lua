-- Stores meta documents as Celery does, all in one step: nothing over a SUCCESS, SETEX (SET without expiry), PUBLISH of
-- the same bytes on the channel of the same name.
--
-- KEYS  one for each document
-- ARGV  1 seconds to keep (0: for ever)
--       2 a whole line that is in every stored SUCCESS, if that is how to know it (yaml); else ''
--       3 how many beginnings of a stored SUCCESS follow; then these; then the documents
--
-- Most tasks store once, so a key that is not there is written without a look. A value that is there is looked at
-- through its first bytes, because it may be large; with pcall, because a key of another type is overwritten, as SETEX
-- does.
local ttl, line, prefixes = ARGV[1], ARGV[2], tonumber(ARGV[3])
local longest = 0
for p = 4, 3 + prefixes do
  if #ARGV[p] > longest then longest = #ARGV[p] end
end

local function succeeded(key)
  local current = redis.pcall('GETRANGE', key, 0, line == '' and longest - 1 or -1)
  if type(current) ~= 'string' or current == '' then return false end
  if line ~= '' then
    return string.find('\n' .. current .. '\n', '\n' .. line .. '\n', 1, true) ~= nil
  end
  for p = 4, 3 + prefixes do
    if string.sub(current, 1, #ARGV[p]) == ARGV[p] then return true end
  end
  return false
end

for i = 1, #KEYS do
  local key, document = KEYS[i], ARGV[3 + prefixes + i]
  local stored
  if ttl == '0' then
    stored = redis.call('SET', key, document, 'NX')
  else
    stored = redis.call('SET', key, document, 'EX', ttl, 'NX')
  end
  if not stored and not succeeded(key) then
    if ttl == '0' then
      stored = redis.call('SET', key, document)
    else
      stored = redis.call('SETEX', key, ttl, document)
    end
  end
  if stored then redis.call('PUBLISH', key, document) end
end
return #KEYS
