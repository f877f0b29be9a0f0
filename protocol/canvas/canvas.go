// Package canvas turns Celery's workflows, which are signatures of the types chain, group and chord nested in any way,
// into the single tasks that begin them. It is pure: names in, names out.
//
// A workflow is first frozen: each task in it gets its id, chains are spliced, a group that something follows becomes a
// chord, and each part of a chord gets the chord's body. Freezing what is frozen changes nothing, so it does not matter
// who has frozen it. Then what begins is sent: the first step of a chain with the other steps in its chain option, every
// member of a group, every part of a chord's header.
package canvas

import (
	"errors"
	"fmt"
	"maps"
	"reflect"
	"slices"

	"github.com/gelery/gelery/protocol"
)

// Names of the signatures that are not tasks.
const (
	chainTask  = "celery.chain"
	groupTask  = "celery.group"
	chordTask  = "celery.chord"
	chunksTask = "celery.chunks"
)

// Bounds of a workflow: what is nested deeper, or has more tasks, is refused.
const (
	maxDepth = 120
	maxTasks = 700_000 // counting a chord's parts twice
)

// Origin is what a workflow is given by whoever starts it.
type Origin struct {
	Args           []any         // before the arguments of whatever begins: the result of the task before
	RootID         string        // "": as the signatures say
	ParentID       string        // "": as the signatures say
	ReplyTo        string        // for tasks that name no reply_to
	Priority       int           // of the task before, for whoever lets the next ones inherit it
	HeaderErrbacks bool          // error callbacks of a chord are called for parts of its header too: task_allow_error_cb_on_chord_header
	NewID          func() string // the ids of what has none, in a fixed order; nil: protocol.NewID
}

// Expansion is how a workflow begins.
type Expansion struct {
	Tasks  []protocol.Signature // to be sent, in this order: single tasks with all options
	Chords []Chord              // to be announced before any task is sent
	Result protocol.ResultTuple // of the workflow, with all that comes before it as parents
}

// Chord is a chord that is about to begin.
type Chord struct {
	ID    string // of the header's group
	Size  int    // how many of its tasks report to it
	Body  protocol.Signature
	Parts []protocol.ResultTuple // results of the header
}

// Expand freezes a workflow and takes it apart.
func Expand(sig protocol.Signature, o Origin) (*Expansion, error) {
	x := newExpander(o)
	frozen, result, err := x.freeze(sig, place{})
	if err != nil {
		return nil, err
	}
	x.out.Result = result
	if err := x.begin(frozen, o.Args, nil); err != nil {
		return nil, err
	}
	return &x.out, nil
}

// Freeze gives all tasks of a workflow their ids, as Expand does, and returns it with its result. id is that of its last
// task, or of its group, if it has none yet; "": a new one.
func Freeze(sig protocol.Signature, id string, o Origin) (protocol.Signature, protocol.ResultTuple, error) {
	return newExpander(o).freeze(sig, place{id: id})
}

type expander struct {
	origin Origin
	out    Expansion
	depth  int
	tasks  int

	ascending bool // see ascend
}

func newExpander(o Origin) *expander {
	if o.NewID == nil {
		o.NewID = protocol.NewID
	}
	return &expander{origin: o}
}

// place is where in a workflow a signature stands.
type place struct {
	id       string // unless it has one
	group    string // the group that it is a member of
	index    *int64
	chord    any   // the body of the chord that waits for it, in dict form
	links    []any // callbacks and errbacks of what it is the end or a part of
	errbacks []any
}

// Kind is the type of a signature: "chain", "group", "chord", or "" for a task.
func Kind(sig *protocol.Signature) string {
	switch sig.SubtaskType {
	case "chain", "group", "chord":
		return sig.SubtaskType
	}
	switch sig.Task { // written by hand, or by something that knows no types
	case chainTask:
		return "chain"
	case groupTask, chunksTask:
		return "group"
	case chordTask:
		return "chord"
	}
	return ""
}

func (x *expander) freeze(sig protocol.Signature, at place) (protocol.Signature, protocol.ResultTuple, error) {
	leave, err := x.enter()
	if err != nil {
		return sig, protocol.ResultTuple{}, err
	}
	defer leave()
	switch Kind(&sig) {
	case "chain":
		return x.freezeChain(sig, at)
	case "group":
		return x.freezeGroup(sig, at)
	case "chord":
		return x.freezeChord(sig, at)
	}
	if sig.Task == "" {
		return sig, protocol.ResultTuple{}, errors.New("a signature names no task")
	}
	if id := sig.Options["task_id"]; id != nil {
		if _, ok := id.(string); !ok {
			return sig, protocol.ResultTuple{}, fmt.Errorf("task_id of task %s is not a string", sig.Task)
		}
	}
	sig, id := x.placed(sig, at)
	sig.Options["task_id"] = id
	return sig, protocol.ResultTuple{ID: id}, nil
}

// enter bounds the work: a chain that contains itself ends here.
func (x *expander) enter() (leave func(), err error) {
	if x.depth++; x.depth > maxDepth {
		return nil, fmt.Errorf("a workflow is nested deeper than %d", maxDepth)
	}
	if x.tasks++; x.tasks > maxTasks {
		return nil, fmt.Errorf("a workflow is too large: more than %d signatures are in it", maxTasks)
	}
	return func() { x.depth-- }, nil
}

// placed is a signature with what its place says of it.
func (x *expander) placed(sig protocol.Signature, at place) (protocol.Signature, string) {
	o := maps.Clone(sig.Options)
	if o == nil {
		o = map[string]any{}
	}
	sig.Options = o
	if o["reply_to"] == nil && x.origin.ReplyTo != "" {
		o["reply_to"] = x.origin.ReplyTo
	}
	if at.group != "" && (o["group_id"] == nil || at.chord != nil) { // it must be the one that counts for the chord
		o["group_id"] = at.group
	}
	if at.index != nil && (o["group_id"] == nil || o["group_id"] == at.group) { // else it is a place in another group
		o["group_index"] = *at.index
	}
	if at.chord != nil {
		o["chord"] = at.chord
	}
	extend(o, "link", at.links)
	extend(o, "link_error", at.errbacks)
	return sig, x.id(o, at)
}

func (x *expander) id(options map[string]any, at place) string {
	if id, _ := options["task_id"].(string); id != "" {
		return id
	}
	if at.id != "" {
		return at.id
	}
	return x.origin.NewID()
}

// extend adds to an option that is a list what it does not have yet.
func extend(options map[string]any, name string, more []any) {
	if len(more) == 0 {
		return
	}
	list := slices.Clone(listOf(options[name]))
	for _, v := range more {
		if !slices.ContainsFunc(list, func(have any) bool { return reflect.DeepEqual(have, v) }) {
			list = append(list, v)
		}
	}
	options[name] = list
}

// listOf is an option that is a list, or one alone.
func listOf(v any) []any {
	switch v := v.(type) {
	case nil:
		return nil
	case []any:
		return v
	}
	return []any{v}
}

// structural are the options that tell of the place of a workflow and not of its tasks.
var structural = []string{"task_id", "group_id", "group_index", "chord", "chain", "link", "link_error", "root_id", "parent_id", "reply_to"}

// own are the options of a workflow that its tasks share.
func own(options map[string]any) map[string]any {
	shared := maps.Clone(options)
	for _, name := range structural {
		delete(shared, name)
	}
	return shared
}

// override puts options over those of a signature.
func override(sig *protocol.Signature, options map[string]any) {
	if len(options) == 0 {
		return
	}
	merged := maps.Clone(sig.Options)
	if merged == nil {
		merged = map[string]any{}
	}
	maps.Copy(merged, options)
	sig.Options = merged
}

// inner reads signatures that a signature holds.
func inner(what string, v any) ([]protocol.Signature, error) {
	list, ok := v.([]any)
	if !ok {
		return nil, fmt.Errorf("%s is not a list of signatures", what)
	}
	all := make([]protocol.Signature, len(list))
	for i, item := range list {
		var err error
		if all[i], err = protocol.SignatureFromValue(item); err != nil {
			return nil, fmt.Errorf("%s[%d]: %w", what, i, err)
		}
	}
	return all, nil
}

func values(all []protocol.Signature) []any {
	list := make([]any, len(all))
	for i := range all {
		list[i] = all[i].Value()
	}
	return list
}

// before puts arguments before those of a signature that takes any.
func before(sig *protocol.Signature, args []any) {
	if len(args) > 0 && !sig.Immutable {
		sig.Args = slices.Concat(args, sig.Args)
	}
}

// attach makes parent the first ancestor of a result.
func attach(result *protocol.ResultTuple, parent protocol.ResultTuple) {
	for result.Parent != nil {
		result.Parent = new(*result.Parent) // which others may share
		result = result.Parent
	}
	result.Parent = &parent
}

// begin sends what begins a frozen workflow. Options are those of the workflows that it is a part of.
func (x *expander) begin(sig protocol.Signature, args []any, options map[string]any) error {
	switch Kind(&sig) {
	case "chain":
		if sig.Immutable {
			args = nil
		}
		steps, err := inner("tasks of a chain", sig.Kwargs["tasks"])
		if err != nil {
			return err
		}
		first := steps[0]
		if rest := steps[1:]; len(rest) > 0 {
			first.Options = maps.Clone(first.Options)
			reversed := values(rest)
			slices.Reverse(reversed)
			first.Options["chain"] = append(reversed, listOf(first.Options["chain"])...)
		}
		follow(&first, sig.Options)
		return x.begin(first, args, options)
	case "group":
		members, err := inner("tasks of a group", sig.Kwargs["tasks"])
		if err != nil {
			return err
		}
		return x.beginAll(members, slices.Concat(args, sig.Args), merged(options, own(sig.Options)))
	case "chord":
		return x.beginChord(sig, args, options)
	}
	before(&sig, args)
	override(&sig, options)
	if x.origin.RootID != "" {
		sig.Options["root_id"] = x.origin.RootID
	}
	if x.origin.ParentID != "" {
		sig.Options["parent_id"] = x.origin.ParentID
	}
	x.out.Tasks = append(x.out.Tasks, sig)
	return nil
}

func merged(weak, strong map[string]any) map[string]any {
	if len(weak) == 0 {
		return strong
	}
	all := maps.Clone(strong)
	for name, v := range weak { // those outside win: they were said last
		all[name] = v
	}
	return all
}

func (x *expander) beginAll(members []protocol.Signature, args []any, options map[string]any) error {
	for _, m := range members {
		m.Options = maps.Clone(m.Options)
		if err := x.begin(m, args, options); err != nil {
			return err
		}
	}
	return nil
}

func (x *expander) beginChord(sig protocol.Signature, args []any, options map[string]any) error {
	header, body, err := parts(&sig)
	if err != nil {
		return err
	}
	members, err := inner("header of a chord", header.Kwargs["tasks"])
	if err != nil {
		return err
	}
	follow(&body, sig.Options)
	options = merged(options, own(sig.Options))
	if len(members) == 0 {
		body.Options = maps.Clone(body.Options)
		return x.begin(body, []any{[]any{}}, options)
	}
	id, _ := header.Options["task_id"].(string)
	c := Chord{ID: id, Body: body, Parts: make([]protocol.ResultTuple, len(members))}
	value := body.Value()
	for i := range members {
		if members[i], c.Parts[i], err = x.freeze(members[i], place{group: id, index: new(int64(i)), chord: value}); err != nil {
			return fmt.Errorf("header of a chord: member %d: %w", i, err)
		}
		n, err := size(&members[i])
		if err != nil {
			return err
		}
		c.Size += n
	}
	if c.Size == 0 { // all are empty groups
		body.Options = maps.Clone(body.Options)
		return x.begin(body, []any{[]any{}}, options)
	}
	x.out.Chords = append(x.out.Chords, c)
	if !sig.Immutable {
		args = slices.Concat(args, sig.Args)
	}
	return x.beginAll(members, args, merged(options, own(header.Options)))
}
