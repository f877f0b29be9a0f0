-- What the scripts about chords have in common. A chord has three keys of Celery's (parts, extra, size) and one of ours: the
-- mark, which is "ended", or "by " and the id of the task by which the chord was complete.
--
-- MGET takes a key of another type for one that is not there, where GET would stop the script and so all other chords.

-- parts counts what is in the set or list of parts.
local function parts(key, ordered)
  return redis.call(ordered and 'ZCARD' or 'LLEN', key)
end

-- look tells how many parts the chord has (nil if that is not known, a text if it is no number), and its mark.
local function look(extra, size, mark)
  local stored = redis.call('MGET', size, extra, mark)
  if not stored[1] then return nil, stored[3] end
  local total, more = tonumber(stored[1]), tonumber(stored[2] or '0')
  if not total or not more then return size .. ' or ' .. extra .. ' is not a number', stored[3] end
  return total + more, stored[3]
end
