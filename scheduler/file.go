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

// edit changes the definition of one entry and leaves the rest of the file as it is, comments too. A nil definition removes it.
func (f *File) edit(name string, definition map[string]any) error {
	if filepath.Ext(f.path) == ".json" {
		return f.editJSON(name, definition)
	}
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
	if err := editMap(root, name, definition); err != nil {
		return err
	}
	if data, err = yaml.Marshal(&document); err != nil {
		return err
	}
	return atomicfile.Replace(f.path, data)
}

func (f *File) editJSON(name string, definition map[string]any) error {
	dict, err := f.read()
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("%s: %w", f.path, err)
	}
	if _, has := dict[name]; !has && definition == nil {
		return ErrNoEntry
	}
	all := map[string]any{}
	maps.Copy(all, dict)
	if all[name] = definition; definition == nil {
		delete(all, name)
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
