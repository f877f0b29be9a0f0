package canvas

import (
	"errors"
	"fmt"
	"maps"
	"slices"

	"github.com/gelery/gelery/protocol"
)

// freezeChain freezes the steps of a chain. What becomes of each is the argument of the next, so all that tells of the
// chain's end is told to its last step.
func (x *expander) freezeChain(sig protocol.Signature, at place) (protocol.Signature, protocol.ResultTuple, error) {
	none := protocol.ResultTuple{}
	steps, err := x.splice(sig)
	if err != nil {
		return sig, none, err
	}
	if len(steps) == 0 {
		return sig, none, errors.New("a chain has no task")
	}
	for at.chord != nil && len(steps) > 1 && isEmpty(&steps[len(steps)-1]) {
		steps = steps[:len(steps)-1] // it could not report to the chord
	}
	steps, err = fold(steps)
	if err != nil {
		return sig, none, err
	}
	override(&steps[0], own(sig.Options)) // Celery sends only the first step with the options of the chain
	links := slices.Concat(listOf(sig.Options["link"]), at.links)
	errbacks := slices.Concat(listOf(sig.Options["link_error"]), at.errbacks)
	if id, _ := sig.Options["task_id"].(string); id != "" {
		at.id = id
	}
	at = inherited(sig.Options, at)
	var result protocol.ResultTuple
	for i := range steps {
		here := place{errbacks: errbacks}
		if i == len(steps)-1 {
			here = at
			here.links, here.errbacks = links, errbacks
		}
		frozen, r, err := x.freeze(steps[i], here)
		if err != nil {
			return sig, none, err
		}
		steps[i] = frozen
		if i > 0 {
			attach(&r, result)
		}
		result = r
	}
	if len(steps) == 1 {
		follow(&steps[0], sig.Options)
		steps[0].Immutable = steps[0].Immutable || sig.Immutable
		return steps[0], result, nil
	}
	chain := ChainOf(steps)
	chain.Options["task_id"] = result.ID
	if len(errbacks) > 0 {
		chain.Options["link_error"] = errbacks // for a chord whose body it is
	}
	follow(&chain, sig.Options)
	chain.Immutable, chain.Extra = sig.Immutable, sig.Extra
	return chain, result, nil
}

// follow lets what follows a workflow, by its options, follow a signature that takes its place, when all that follows that
// one already has run. Celery says so of a chord's body: it has what follows the chord in its chain. The last step is first.
func follow(sig *protocol.Signature, options map[string]any) {
	if rest := listOf(options["chain"]); len(rest) > 0 {
		override(sig, map[string]any{"chain": slices.Concat(rest, listOf(sig.Options["chain"]))})
	}
}

func isEmpty(sig *protocol.Signature) bool {
	members, ok := sig.Kwargs["tasks"].([]any)
	return Kind(sig) == "group" && ok && len(members) == 0
}

// inherited lets a workflow that says its place itself, because it was frozen before or is a replacement, tell it to
// its end.
func inherited(options map[string]any, at place) place {
	if group, _ := options["group_id"].(string); group != "" && at.group == "" {
		at.group = group
		if index, ok := options["group_index"].(int64); ok && at.index == nil {
			at.index = &index
		}
	}
	if chord := options["chord"]; chord != nil && at.chord == nil {
		at.chord = chord
	}
	return at
}

// splice is the steps of a chain, those of chains in it among them. A group of one is that one.
func (x *expander) splice(chain protocol.Signature) ([]protocol.Signature, error) {
	leave, err := x.enter()
	if err != nil {
		return nil, err
	}
	defer leave()
	all, err := inner("tasks of a chain", chain.Kwargs["tasks"])
	if err != nil {
		return nil, err
	}
	var steps []protocol.Signature
	for _, s := range all {
		if Kind(&s) == "group" {
			members, err := x.members(s)
			if err != nil {
				return nil, err
			}
			if len(members) == 1 {
				override(&members[0], own(s.Options))
				s = members[0]
			}
		}
		if Kind(&s) != "chain" {
			steps = append(steps, s)
			continue
		}
		spliced, err := x.splice(s)
		if err != nil {
			return nil, err
		}
		if len(spliced) == 0 {
			continue
		}
		override(&spliced[0], own(s.Options))
		handDown(&s, spliced)
		steps = append(steps, spliced...)
	}
	if len(steps) > 0 {
		before(&steps[0], chain.Args)
	}
	return steps, nil
}

// handDown tells the steps of a chain that is spliced into another what is said of that chain.
func handDown(chain *protocol.Signature, steps []protocol.Signature) {
	errbacks := listOf(chain.Options["link_error"])
	for i := range steps {
		last := i == len(steps)-1
		links := listOf(chain.Options["link"])
		id, named := chain.Options["task_id"]
		if len(errbacks) == 0 && !(last && (len(links) > 0 || named)) {
			continue
		}
		o := maps.Clone(steps[i].Options)
		extend(o, "link_error", errbacks)
		if last {
			extend(o, "link", links)
			if named && o["task_id"] == nil {
				o["task_id"] = id
			}
		}
		steps[i].Options = o
	}
}

// fold makes a chord of a group that something follows, and lets the body of a chord be followed by it.
func fold(steps []protocol.Signature) ([]protocol.Signature, error) {
	for i, s := range steps[:len(steps)-1] {
		kind := Kind(&s)
		if kind == "" {
			continue
		}
		rest := steps[i+1:]
		header := s
		if kind == "chord" {
			var body protocol.Signature
			var err error
			if header, body, err = parts(&s); err != nil {
				return nil, err
			}
			rest = slices.Concat([]protocol.Signature{body}, rest)
		}
		body := rest[0]
		if len(rest) > 1 {
			body = ChainOf(rest)
		}
		chord := protocol.Signature{Task: chordTask, SubtaskType: "chord", Options: map[string]any{}}
		if kind == "chord" {
			chord.Args, chord.Options, chord.Immutable = s.Args, maps.Clone(s.Options), s.Immutable
			if id := s.Options["task_id"]; id != nil && endID(&rest[0]) == "" {
				delete(chord.Options, "task_id") // of the body that was
				override(&rest[0], map[string]any{"task_id": id})
				body = ChainOf(rest)
			}
		}
		chord.Kwargs = chordKwargs(&header, &body)
		return append(slices.Clone(steps[:i]), chord), nil
	}
	return steps, nil
}

// ChainOf is a chain of signatures.
func ChainOf(steps []protocol.Signature) protocol.Signature {
	return protocol.Signature{Task: chainTask, SubtaskType: "chain", Args: []any{}, Options: map[string]any{},
		Kwargs: map[string]any{"tasks": values(steps)}}
}

// GroupOf is a group of signatures.
func GroupOf(members []protocol.Signature) protocol.Signature {
	return protocol.Signature{Task: groupTask, SubtaskType: "group", Args: []any{}, Options: map[string]any{},
		Kwargs: map[string]any{"tasks": values(members)}}
}

// ChordOf is a chord of a group and what follows it.
func ChordOf(header, body protocol.Signature) protocol.Signature {
	return protocol.Signature{Task: chordTask, SubtaskType: "chord", Args: []any{}, Options: map[string]any{}, Kwargs: chordKwargs(&header, &body)}
}

func chordKwargs(header, body *protocol.Signature) map[string]any {
	return map[string]any{"kwargs": map[string]any{}, "header": header.Value(), "body": body.Value()}
}

// members is the tasks of a group, those of groups in it among them.
func (x *expander) members(group protocol.Signature) ([]protocol.Signature, error) {
	leave, err := x.enter()
	if err != nil {
		return nil, err
	}
	defer leave()
	if group.Task == chunksTask {
		if group, err = Chunked(&group); err != nil {
			return nil, err
		}
	}
	all, err := inner("tasks of a group", group.Kwargs["tasks"])
	if err != nil {
		return nil, err
	}
	if !slices.ContainsFunc(all, func(s protocol.Signature) bool { return Kind(&s) == "group" }) {
		return all, nil
	}
	var flat []protocol.Signature
	for _, s := range all {
		if Kind(&s) != "group" {
			flat = append(flat, s)
			continue
		}
		nested, err := x.members(s)
		if err != nil {
			return nil, err
		}
		for i := range nested {
			override(&nested[i], own(s.Options))
		}
		flat = append(flat, nested...)
	}
	return flat, nil
}

// freezeGroup freezes the members of a group. A group in place of a chord's part reports to that chord by its members.
func (x *expander) freezeGroup(sig protocol.Signature, at place) (protocol.Signature, protocol.ResultTuple, error) {
	none := protocol.ResultTuple{}
	members, err := x.members(sig)
	if err != nil {
		return sig, none, err
	}
	options := maps.Clone(sig.Options)
	if options == nil {
		options = map[string]any{}
	}
	id := x.id(options, at)
	at = inherited(options, at)
	if at.index != nil {
		defer x.ascend()()
	}
	result := protocol.ResultTuple{ID: id, Children: make([]protocol.ResultTuple, len(members))}
	links := immutable(slices.Concat(listOf(options["link"]), at.links))
	errbacks := immutable(slices.Concat(listOf(options["link_error"]), at.errbacks))
	for i := range members {
		here := place{group: id, index: new(int64(i)), chord: at.chord, errbacks: errbacks}
		if i == 0 {
			here.links = links // as Celery does: all of them would call it as often
		}
		if at.chord != nil && at.group != "" {
			here.group, here.index = at.group, at.index
		}
		if members[i], result.Children[i], err = x.freeze(members[i], here); err != nil {
			return sig, none, fmt.Errorf("member %d: %w", i, err)
		}
	}
	for _, name := range []string{"link", "link_error", "chord", "group_id", "group_index"} {
		delete(options, name) // handed down
	}
	options["task_id"] = id
	frozen := protocol.Signature{Task: groupTask, SubtaskType: "group", Args: sig.Args, Options: options, Immutable: sig.Immutable,
		Extra: sig.Extra, Kwargs: map[string]any{"tasks": values(members)}}
	return frozen, result, nil
}

// ascend makes the ids of what is frozen next ascend, until the function that it returns is called. Where a group ends a chain of a
// chord's header, its members have one place among the parts, and backends sort what has one place by ids.
func (x *expander) ascend() (end func()) {
	if x.ascending {
		return func() {}
	}
	newID, n := x.origin.NewID, 0
	base := newID()
	x.ascending = true
	x.origin.NewID = func() string {
		n++
		return protocol.NumberedID(base, n)
	}
	return func() { x.origin.NewID, x.ascending = newID, false }
}

// immutable is callbacks that get no argument: those of a group, which has no single result.
func immutable(callbacks []any) []any {
	all := make([]any, len(callbacks))
	for i, v := range callbacks {
		all[i] = v
		if dict, ok := v.(map[string]any); ok {
			dict = maps.Clone(dict)
			dict["immutable"] = true
			all[i] = dict
		}
	}
	return all
}

// freezeChord freezes a chord's body, which takes the chord's place, and its header. The tasks of the header are told of
// their group and of the body when the chord begins: Celery before 5.6 makes a new group then, and a workflow of chords in
// chords would hold more copies of the inner ones than a message has room for.
func (x *expander) freezeChord(sig protocol.Signature, at place) (protocol.Signature, protocol.ResultTuple, error) {
	none := protocol.ResultTuple{}
	header, body, err := parts(&sig)
	if err != nil {
		return sig, none, err
	}
	options := maps.Clone(sig.Options)
	if options == nil {
		options = map[string]any{}
	}
	id, _ := header.Options["task_id"].(string)
	if own, _ := options["task_id"].(string); own != "" && endID(&body) == "" {
		at.id = own
	} else if own != "" && id == "" {
		id = own // a chord that Celery has frozen has the id of its header
	}
	if id == "" {
		id = x.origin.NewID()
	}
	override(&header, map[string]any{"task_id": id})
	at = inherited(options, at)
	if at.group == "" {
		at.group = id // the body's message names the group, from Celery 5.6 on
	}
	at.links = slices.Concat(listOf(options["link"]), at.links)
	at.errbacks = slices.Concat(listOf(options["link_error"]), at.errbacks)
	override(&body, own(options))
	body, result, err := x.freeze(body, at)
	if err != nil {
		return sig, none, fmt.Errorf("body of a chord: %w", err)
	}
	members, err := x.members(header)
	if err != nil {
		return sig, none, fmt.Errorf("header of a chord: %w", err)
	}
	group := protocol.ResultTuple{ID: id, Children: make([]protocol.ResultTuple, len(members))}
	for i := range members {
		here := place{index: new(int64(i))}
		switch {
		case Kind(&members[i]) == "chord":
			here.errbacks = at.errbacks
		case x.origin.HeaderErrbacks:
			here.errbacks = immutable(at.errbacks)
		}
		if members[i], group.Children[i], err = x.freeze(members[i], here); err != nil {
			return sig, none, fmt.Errorf("header of a chord: member %d: %w", i, err)
		}
	}
	header.Task, header.SubtaskType = groupTask, "group"
	header.Kwargs = map[string]any{"tasks": values(members)}
	attach(&result, group)
	for _, name := range []string{"link", "link_error", "chord", "group_id", "group_index"} {
		delete(options, name) // handed down to the body
	}
	options["task_id"] = id // as Celery has it once a chord is frozen
	sig.Options = options
	sig.Kwargs = chordKwargs(&header, &body)
	return sig, result, nil
}

// endID is the id of the task that a signature ends with; "" if it has none yet.
func endID(sig *protocol.Signature) string {
	id, _ := sig.Options["task_id"].(string)
	switch Kind(sig) {
	case "chain":
		if steps, err := inner("", sig.Kwargs["tasks"]); id == "" && err == nil && len(steps) > 0 {
			return endID(&steps[len(steps)-1])
		}
	case "chord":
		if _, body, err := parts(sig); err == nil {
			if own := endID(&body); own != "" {
				return own
			}
		}
	}
	return id
}

// AtEnd is a signature whose end, its last task or group, has the options; in a chain what is not of its end alone goes to all
// steps.
func AtEnd(sig protocol.Signature, options map[string]any) (protocol.Signature, error) {
	switch Kind(&sig) {
	case "chain":
		steps, err := inner("tasks of a chain", sig.Kwargs["tasks"])
		if err != nil || len(steps) == 0 {
			return sig, err
		}
		last := len(steps) - 1
		for i := range steps[:last] {
			override(&steps[i], own(options))
		}
		if steps[last], err = AtEnd(steps[last], options); err != nil {
			return sig, err
		}
		sig.Kwargs = map[string]any{"tasks": values(steps)}
	case "chord":
		header, body, err := parts(&sig)
		if err != nil {
			return sig, err
		}
		if body, err = AtEnd(body, options); err != nil {
			return sig, err
		}
		sig.Kwargs = chordKwargs(&header, &body)
		return sig, nil
	}
	override(&sig, options)
	return sig, nil
}

// Errbacks are the error callbacks of a frozen chord's body, in dict form. A group has handed them down to its members.
func Errbacks(body *protocol.Signature) []any {
	list := listOf(body.Options["link_error"])
	if len(list) > 0 || Kind(body) != "group" {
		return list
	}
	if members, err := inner("", body.Kwargs["tasks"]); err == nil && len(members) > 0 {
		return Errbacks(&members[0])
	}
	return nil
}

// parts is the header of a chord, as a group, and its body.
func parts(chord *protocol.Signature) (header, body protocol.Signature, err error) {
	if chord.Kwargs["body"] == nil {
		return header, body, errors.New("a chord has no body")
	}
	if body, err = protocol.SignatureFromValue(chord.Kwargs["body"]); err != nil {
		return header, body, fmt.Errorf("body of a chord: %w", err)
	}
	if list, ok := chord.Kwargs["header"].([]any); ok {
		header = protocol.Signature{Task: groupTask, SubtaskType: "group", Args: []any{}, Options: map[string]any{},
			Kwargs: map[string]any{"tasks": list}}
		return header, body, nil
	}
	if header, err = protocol.SignatureFromValue(chord.Kwargs["header"]); err != nil {
		return header, body, fmt.Errorf("header of a chord: %w", err)
	}
	if Kind(&header) != "group" { // one alone
		header = protocol.Signature{Task: groupTask, SubtaskType: "group", Args: []any{}, Options: map[string]any{},
			Kwargs: map[string]any{"tasks": []any{header.Value()}}}
	}
	return header, body, nil
}

// size is how many tasks report to the chord that a frozen signature is a part of.
func size(sig *protocol.Signature) (int, error) {
	switch Kind(sig) {
	case "chain":
		steps, err := inner("tasks of a chain", sig.Kwargs["tasks"])
		if err != nil {
			return 0, err
		}
		for _, s := range slices.Backward(steps) {
			if n, err := size(&s); n > 0 || err != nil {
				return n, err
			}
		}
		return 0, nil
	case "group":
		members, err := inner("tasks of a group", sig.Kwargs["tasks"])
		n := 0
		for i := range members {
			m, err := size(&members[i])
			if err != nil {
				return 0, err
			}
			n += m
		}
		return n, err
	case "chord":
		_, body, err := parts(sig)
		if err != nil {
			return 0, err
		}
		return size(&body)
	}
	return 1, nil
}

// Chunked is celery.chunks as the group that it stands for: of celery.starmap, n items each.
func Chunked(chunks *protocol.Signature) (protocol.Signature, error) {
	items, ok := chunks.Kwargs["it"].([]any)
	if !ok {
		return protocol.Signature{}, errors.New("celery.chunks: it is not a list")
	}
	n, ok := chunks.Kwargs["n"].(int64)
	if !ok || n < 1 {
		return protocol.Signature{}, errors.New("celery.chunks: n is not a positive integer")
	}
	var members []any
	for part := range slices.Chunk(items, int(n)) {
		s := protocol.Signature{Task: "celery.starmap", Kwargs: map[string]any{"task": chunks.Kwargs["task"], "it": part}, Immutable: true}
		members = append(members, s.Value())
	}
	return protocol.Signature{Task: groupTask, SubtaskType: "group", Args: []any{}, Options: maps.Clone(chunks.Options),
		Kwargs: map[string]any{"tasks": members}}, nil
}

// Size is how many tasks report to the chord that a signature is a part of: one, or the members of the group that it ends
// with.
func Size(sig protocol.Signature) (int, error) {
	frozen, _, err := Freeze(sig, "", Origin{})
	if err != nil {
		return 0, err
	}
	return size(&frozen)
}
