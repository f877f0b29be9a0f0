package settings

import (
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"

	"go.yaml.in/yaml/v3"
)

// maxFile bounds a file of settings, in bytes.
const maxFile = 1 << 20

// ReadFile takes the settings of a file, YAML or JSON. Those of stronger sources stay. Every mistake is told, each as an
// [*Error].
func (s *Settings) ReadFile(path string) error {
	switch filepath.Ext(path) {
	case ".py":
		return fmt.Errorf("%s: Go cannot read a Python module; write its settings into a YAML file", path)
	case ".toml":
		return fmt.Errorf("%s: TOML is not read; write the settings as YAML or JSON", path)
	}
	f, err := os.Open(path) //nolint:gosec // it is the operator who names the file
	if err != nil {
		return err
	}
	defer func() { _ = f.Close() }()
	data, err := io.ReadAll(io.LimitReader(f, maxFile+1))
	if err != nil {
		return err
	}
	if len(data) > maxFile {
		return fmt.Errorf("%s: a file of settings has at most %d bytes", path, maxFile)
	}
	return s.read(path, data)
}

func (s *Settings) read(path string, data []byte) error {
	var document yaml.Node
	if err := yaml.Unmarshal(data, &document); err != nil {
		text := strings.TrimPrefix(err.Error(), "yaml: ")
		if before, _, ok := strings.Cut(text, "unknown anchor"); ok { // it may be a password that begins with *
			text = before + "an alias without an anchor; a text that begins with * stands in quotes"
		}
		return fmt.Errorf("%s: %s", path, text)
	}
	if len(document.Content) == 0 || isNull(document.Content[0]) {
		return nil // nothing but comments
	}
	root := resolve(document.Content[0])
	if root.Kind != yaml.MappingNode {
		return fmt.Errorf("%s: a file of settings is a map of names to values, not %s", path, shown(root))
	}
	written := map[string]string{}
	var errs []error
	for i := 0; i+1 < len(root.Content); i += 2 {
		key, value := resolve(root.Content[i]), root.Content[i+1]
		origin := fmt.Sprintf("%s:%d", path, key.Line)
		if key.Kind != yaml.ScalarNode {
			errs = append(errs, fmt.Errorf("%s: a key is a name, not %s", origin, shown(key)))
			continue
		}
		setting, err := Find(key.Value)
		if err != nil {
			errs = append(errs, &Error{key.Value, origin, err})
			continue
		}
		if first := written[setting.Name]; first != "" {
			errs = append(errs, &Error{key.Value, origin, errors.New("it is given twice: see " + first)})
			continue
		}
		written[setting.Name] = origin + ": " + key.Value
		errs = append(errs, s.set(setting, key.Value, value, origin, fromFile))
	}
	return errors.Join(errs...)
}
