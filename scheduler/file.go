package scheduler

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"time"

	"go.yaml.in/yaml/v3"

	"github.com/gelery/gelery/internal/atomicfile"
	"github.com/gelery/gelery/protocol/serialization"
)

// maxFile bounds a file of entries, in bytes.
const maxFile = 256 << 20

// File is a file of entries: YAML, or JSON if its name ends so. It is a map of names to definitions, see [ParseEntry].
type File struct {
	path string
	zone *time.Location
	seen fs.FileInfo // as it was read last; nil: never
	told bool        // that it is not there
}

// NewFile reads nothing yet. The zone is that of entries without a timezone; nil: UTC.
func NewFile(path string, zone *time.Location) *File { return &File{path: path, zone: zone} }

// Changed tells whether the file is another one than was read.
func (f *File) Changed() bool {
	info, err := os.Stat(f.path)
	if err != nil {
		return f.seen == nil && !f.told // one that is gone stays as it was
	}
	return f.seen == nil || !os.SameFile(info, f.seen) || info.Size() != f.seen.Size() || !info.ModTime().Equal(f.seen.ModTime())
}

// Read reads the file. What is wrong with single entries is told in wrong, as *EntryError; the others are there.
func (f *File) Read() (entries []*Entry, wrong []error, err error) {
	dict, err := f.read()
	if err != nil {
		return nil, nil, fmt.Errorf("%s: %w", f.path, err)
	}
	for _, name := range slices.Sorted(maps.Keys(dict)) {
		definition, ok := dict[name].(map[string]any)
		if !ok {
			wrong = append(wrong, &EntryError{name, "", errors.New("its definition is no map")})
			continue
		}
		e, err := ParseEntry(name, definition, f.zone)
		if err != nil {
			wrong = append(wrong, err)
			continue
		}
		entries = append(entries, e)
	}
	return entries, wrong, nil
}

func (f *File) read() (map[string]any, error) {
	file, err := os.Open(f.path)
	if f.told = err != nil; err != nil {
		return nil, errors.Unwrap(err)
	}
	defer func() { _ = file.Close() }()
	info, err := file.Stat()
	if err != nil {
		return nil, err
	}
	f.seen = info
	data, err := io.ReadAll(io.LimitReader(file, maxFile+1))
	switch {
	case err != nil:
		return nil, err
	case len(data) > maxFile:
		return nil, fmt.Errorf("it has more than %d bytes", maxFile)
	case len(data) == 0:
		return nil, nil
	}
	serializer := serialization.YAML
	if filepath.Ext(f.path) == ".json" {
		serializer = serialization.JSON
	}
	v, err := serializer.Decode(data)
	if err != nil {
		return nil, err
	}
	dict, ok := v.(map[string]any)
	if !ok && v != nil {
		return nil, errors.New("it is no map of names to definitions")
	}
	return dict, nil
}

// editTimeout is how long an edit waits for another's of the same file.
const editTimeout = 20 * time.Second

// alone does something to the file while no other process that uses alone does.
func (f *File) alone(do func() error) error {
	for begun := time.Now(); ; time.Sleep(10 * time.Millisecond) { //nolint:forbidigo // a lock of files tells nobody that it is free
		unlock, taken, err := tryLock(f.path + ".lock")
		switch {
		case err != nil:
			return err
		case !taken:
			defer unlock()
			return do()
		case time.Since(begun) > editTimeout:
			return fmt.Errorf("%s: another process is changing it", f.path)
		}
	}
}

// edit changes the definitions of entries, all or none, and leaves the rest of the file as it is, comments too. A nil definition removes
// one.
func (f *File) edit(definitions map[string]map[string]any) error {
	switch {
	case len(definitions) == 0:
		return nil
	case filepath.Ext(f.path) == ".json":
		return f.alone(func() error { return f.editJSON(definitions) })
	}
	return f.editYAML(func(root *yaml.Node) error {
		for _, name := range slices.Sorted(maps.Keys(definitions)) {
			if err := editMap(root, name, definitions[name]); err != nil {
				return err
			}
		}
		return nil
	})
}

// pause changes one field of an entry, enabled, and leaves the rest of its definition as it is written. An entry that is written as a
// reference to another is replaced by its definition.
func (f *File) pause(name string, paused bool, definition map[string]any) error {
	if filepath.Ext(f.path) == ".json" {
		return f.edit(map[string]map[string]any{name: definition})
	}
	return f.editYAML(func(root *yaml.Node) error {
		for i := 0; i+1 < len(root.Content); i += 2 {
			if at := root.Content[i+1]; root.Content[i].Value == name && at.Kind == yaml.MappingNode {
				setEnabled(at, !paused)
				return nil
			}
		}
		return editMap(root, name, definition)
	})
}

func setEnabled(entry *yaml.Node, enabled bool) {
	text := strconv.FormatBool(enabled)
	for i := 0; i+1 < len(entry.Content); i += 2 {
		if entry.Content[i].Value == "enabled" {
			value := entry.Content[i+1]
			value.Kind, value.Tag, value.Value, value.Style, value.Alias = yaml.ScalarNode, "!!bool", text, 0, nil
			return
		}
	}
	key := &yaml.Node{}
	key.SetString("enabled")
	entry.Content = append(entry.Content, key, &yaml.Node{Kind: yaml.ScalarNode, Tag: "!!bool", Value: text})
}

func (f *File) editYAML(change func(root *yaml.Node) error) error {
	return f.alone(func() error { return f.changeYAML(change) })
}

func (f *File) changeYAML(change func(root *yaml.Node) error) error {
	data, err := os.ReadFile(f.path)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	var document yaml.Node
	if err := yaml.Unmarshal(data, &document); err != nil {
		return fmt.Errorf("%s: %w", f.path, err)
	}
	if document.Kind == 0 {
		document = yaml.Node{Kind: yaml.DocumentNode, Content: []*yaml.Node{{Kind: yaml.MappingNode}}}
	}
	root := document.Content[0]
	if root.Kind != yaml.MappingNode {
		return fmt.Errorf("%s: it is no map of names to definitions", f.path)
	}
	if err := change(root); err != nil {
		return err
	}
	var text bytes.Buffer
	encoder := yaml.NewEncoder(&text)
	encoder.SetIndent(2)
	if err := errors.Join(encoder.Encode(&document), encoder.Close()); err != nil {
		return err
	}
	return atomicfile.Replace(f.path, text.Bytes())
}

func (f *File) editJSON(definitions map[string]map[string]any) error {
	dict, err := f.read()
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("%s: %w", f.path, err)
	}
	all := map[string]any{}
	maps.Copy(all, dict)
	for name, definition := range definitions {
		if _, has := dict[name]; !has && definition == nil {
			return ErrNoEntry
		}
		if all[name] = definition; definition == nil {
			delete(all, name)
		}
	}
	text, err := serialization.AppendJSON(nil, all)
	if err != nil {
		return err
	}
	var lines bytes.Buffer
	if err := json.Indent(&lines, text, "", "  "); err != nil {
		return err
	}
	lines.WriteByte('\n')
	return atomicfile.Replace(f.path, lines.Bytes())
}

func editMap(root *yaml.Node, name string, definition map[string]any) error {
	at := -1
	for i := 0; i+1 < len(root.Content); i += 2 {
		if root.Content[i].Value == name {
			at = i
		}
	}
	if definition == nil {
		if at < 0 {
			return ErrNoEntry
		}
		root.Content = slices.Delete(root.Content, at, at+2)
		return nil
	}
	text, err := serialization.YAML.Append(nil, definition)
	if err != nil {
		return err
	}
	var value yaml.Node
	if err := yaml.Unmarshal(text, &value); err != nil {
		return err
	}
	plain(&value)
	if at >= 0 {
		root.Content[at+1] = value.Content[0]
		return nil
	}
	key := &yaml.Node{}
	key.SetString(name)
	root.Style = 0
	root.Content = append(root.Content, key, value.Content[0])
	return nil
}

// plain lets maps and lists be written a line for each entry, and keys without quotes.
func plain(n *yaml.Node) {
	if n.Kind == yaml.MappingNode || n.Kind == yaml.SequenceNode {
		n.Style = 0
	}
	for i, c := range n.Content {
		if plain(c); n.Kind == yaml.MappingNode && i%2 == 0 {
			c.Style = 0
		}
	}
}
