package monitor

import "strings"

// sizeOfName is about what a name takes beside its text.
const sizeOfName = 80

// name is a text that many tasks have, kept once and as long as one of them has it. Nil is the empty text.
type name struct {
	text  string
	users int
	stays bool // also with no user
}

func (n *name) String() string {
	if n == nil {
		return ""
	}
	return n.text
}

// names are those in use.
type names struct {
	all   map[string]*name
	bytes int // what they take, without those that stay
}

// newNames has some from the beginning, which stay and are not counted.
func newNames(stay ...string) names {
	n := names{all: map[string]*name{}}
	for _, text := range stay {
		n.all[text] = &name{text: text, stays: true}
	}
	return n
}

// set replaces what one user has of a name. A text that is too long is cut.
func (n *names) set(to **name, text string) {
	old := *to
	if old.String() == text {
		return
	}
	*to = n.take(text)
	n.release(old)
}

// setText is set of a field's value, if that is a text.
func (n *names) setText(to **name, v any) {
	if text, _ := v.(string); text != "" {
		n.set(to, text)
	}
}

func (n *names) take(text string) *name {
	if text == "" {
		return nil
	}
	if len(text) > maxName {
		text = clip(text, maxName)
	}
	x := n.all[text]
	if x == nil {
		x = &name{text: strings.Clone(text)}
		n.all[x.text] = x
		n.bytes += sizeOfName + len(x.text)
	}
	x.users++
	return x
}

// release ends one user's use.
func (n *names) release(x *name) {
	if x == nil {
		return
	}
	if x.users--; x.users == 0 && !x.stays {
		delete(n.all, x.text)
		n.bytes -= sizeOfName + len(x.text)
	}
}
