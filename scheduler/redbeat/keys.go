package redbeat

import "strings"

// keys are the names of all keys beside those of entries, which are the prefix and the entry's name.
type keys struct {
	prefix string
	// RedBeat's.
	schedule string // zset: an entry's key, and when it is due as whole Unix seconds; below zero: never, or not for RedBeat
	statics  string // set: names of the entries of beat_schedule
	// Ours.
	due        string // zset: the same, of the entries that RedBeat leaves alone
	pending    string // hash: the id of a run that is marked and not reported as sent, and the run
	latest     string // the latest moment that Gelery has marked, in Unix milliseconds
	quarantine string // list: pending runs that cannot be read
}

func keysOf(prefix string) keys {
	own := prefix + ":gelery:"
	return keys{prefix: prefix, schedule: prefix + ":schedule", statics: prefix + ":statics", due: own + "schedule", pending: own + "pending",
		latest: own + "latest", quarantine: own + "quarantine"}
}

// entry is the key of an entry: a hash of its definition, meta, and what RedBeat has no word for.
func (k keys) entry(name string) string { return k.prefix + name }

// name is the name of the entry that a member of a zset is about.
func (k keys) name(member string) (string, bool) {
	name, ok := strings.CutPrefix(member, k.prefix)
	return name, ok && name != "" && !reserved(name)
}

// reserved tells names whose keys are RedBeat's own or ours.
func reserved(name string) bool { return strings.HasPrefix(name, ":") }

// Fields of an entry's hash.
const (
	definitionField = "definition" // RedBeat's
	metaField       = "meta"       // RedBeat's
	extraField      = "gelery"     // ours
)
