package canvas

import "github.com/gelery/gelery/protocol"

// Loss is a task of a workflow that will never run because something before it has failed.
type Loss struct {
	ID      string
	ReplyTo string

	// Of what is a part of a chord that has begun, and has to be told.
	Group string
	Index *int
	Chord *protocol.Signature
}

// Lost lists the tasks of a frozen signature that will not begin, all that a client may be waiting for: the steps of a
// chain, the members of a group, the header and the body of a chord. What has no id nobody can wait for. What cannot be
// read is left out.
func Lost(sig protocol.Signature) []Loss {
	l := &losses{}
	l.add(&sig, true, 0)
	return l.all
}

type losses struct{ all []Loss }

// add adds what a signature holds. Told: the chord that it names has begun.
func (l *losses) add(sig *protocol.Signature, told bool, depth int) {
	if depth > maxDepth || len(l.all) >= maxTasks {
		return
	}
	switch Kind(sig) {
	case "chain", "group":
		all, _ := inner("", sig.Kwargs["tasks"])
		for i := range all {
			l.add(&all[i], told, depth+1)
		}
		return
	case "chord":
		header, body, err := parts(sig)
		if err == nil {
			l.add(&header, false, depth+1)
			l.add(&body, told, depth+1)
		}
		return
	}
	o := sig.Options
	loss := Loss{}
	loss.ID, _ = o["task_id"].(string)
	loss.ReplyTo, _ = o["reply_to"].(string)
	if loss.ID == "" {
		return
	}
	if chord, err := protocol.SignatureFromValue(o["chord"]); told && err == nil {
		loss.Chord = &chord
		loss.Group, _ = o["group_id"].(string)
		if i, ok := o["group_index"].(int64); ok {
			loss.Index = new(int(i))
		}
	}
	l.all = append(l.all, loss)
}
