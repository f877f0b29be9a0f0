package serialization

import (
	"bytes"
	"encoding/base64"
	"errors"
	"fmt"
	"io"
	"math"
	"math/big"
	"strconv"
	"strings"
	"time"
	"unicode/utf8"

	"go.yaml.in/yaml/v3"

	"github.com/gelery/gelery/protocol/value"
)

type yamlSerializer struct{}

// YAML is kombu's yaml: what PyYAML's safe_load reads and safe_dump writes, which is YAML 1.1 ("yes" is a bool, 010 is
// eight, 1:30 is ninety). Tags beyond the standard ones are refused.
var YAML Serializer = yamlSerializer{}

func (yamlSerializer) Name() string            { return "yaml" }
func (yamlSerializer) ContentType() string     { return "application/x-yaml" }
func (yamlSerializer) ContentEncoding() string { return "utf-8" }

// Append writes one line of flow style in ASCII, every text in double quotes, so that no reader can take it for
// anything else. Dates have their YAML form; a time of day, a decimal and a UUID, which safe_dump refuses, are text.
func (s yamlSerializer) Append(dst []byte, v any) ([]byte, error) {
	canonical, err := value.Of(v)
	if err == nil {
		dst, err = appendYAML(dst, canonical, 0)
	}
	return encoded(append(dst, '\n'), s, err)
}

// maxYAMLDepth is what PyYAML loads within Python's recursion limit, with some room for the caller's own stack.
const maxYAMLDepth = 100

func appendYAML(dst []byte, v any, depth int) ([]byte, error) {
	switch v := v.(type) {
	case nil:
		return append(dst, "null"...), nil
	case bool:
		return strconv.AppendBool(dst, v), nil
	case int64:
		return strconv.AppendInt(dst, v, 10), nil
	case *big.Int:
		return appendBig(dst, v)
	case float64:
		return appendYAMLFloat(dst, v), nil
	case string:
		return appendYAMLString(dst, v), nil
	case []byte:
		dst = append(dst, `!!binary "`...)
		return append(base64.StdEncoding.AppendEncode(dst, v), '"'), nil
	case time.Time:
		if _, offset := v.Zone(); offset%60 != 0 { // YAML offsets have no seconds
			v = v.UTC()
		}
		return appendTimestamp(dst, v), nil
	case value.LocalTime, value.Date:
		return appendTimestamp(dst, v), nil
	case []any:
		return appendYAMLList(dst, v, depth)
	case map[string]any:
		return appendYAMLDict(dst, v, depth)
	}
	text, ok := value.AppendText(nil, v)
	if !ok {
		return dst, fmt.Errorf("%T is not a canonical value", v)
	}
	return appendYAMLString(dst, string(text)), nil
}

func appendTimestamp(dst []byte, v any) []byte {
	dst, _ = value.AppendText(append(dst, `!!timestamp "`...), v)
	return append(dst, '"')
}

// appendYAMLFloat puts a point into every float, because PyYAML takes 1e+22 for text.
func appendYAMLFloat(dst []byte, f float64) []byte {
	switch {
	case math.IsNaN(f):
		return append(dst, ".nan"...)
	case math.IsInf(f, 1):
		return append(dst, ".inf"...)
	case math.IsInf(f, -1):
		return append(dst, "-.inf"...)
	}
	text := value.AppendFloat(nil, f)
	if mantissa, exponent, ok := bytes.Cut(text, []byte{'e'}); ok && bytes.IndexByte(mantissa, '.') < 0 {
		dst = append(append(dst, mantissa...), ".0e"...)
		return append(dst, exponent...)
	}
	return append(dst, text...)
}

func appendYAMLList(dst []byte, list []any, depth int) ([]byte, error) {
	if depth >= maxYAMLDepth {
		return dst, errTooDeep
	}
	dst = append(dst, '[')
	var err error
	for i, v := range list {
		if i > 0 {
			dst = append(dst, ", "...)
		}
		if dst, err = appendYAML(dst, v, depth+1); err != nil {
			return dst, err
		}
	}
	return append(dst, ']'), nil
}

func appendYAMLDict(dst []byte, dict map[string]any, depth int) ([]byte, error) {
	if depth >= maxYAMLDepth {
		return dst, errTooDeep
	}
	dst = append(dst, '{')
	var err error
	for i, key := range sortedKeys(nil, dict) {
		if i > 0 {
			dst = append(dst, ", "...)
		}
		start := len(dst)
		dst = appendYAMLString(dst, key)
		if len(dst)-start > 1000 { // YAML looks 1024 characters ahead for the colon, unless a mark announces it
			dst = append(dst[:start], "? "...)
			dst = append(appendYAMLString(dst, key), ' ')
		}
		dst = append(dst, ": "...)
		if dst, err = appendYAML(dst, dict[key], depth+1); err != nil {
			return dst, err
		}
	}
	return append(dst, '}'), nil
}

func appendYAMLString(dst []byte, s string) []byte {
	dst = append(dst, '"')
	for i := 0; i < len(s); {
		r, size := utf8.DecodeRuneInString(s[i:])
		if r == utf8.RuneError && size == 1 {
			if surrogate, ok := value.Surrogate(s[i:]); ok {
				r, size = surrogate, 3
			}
		}
		i += size
		switch {
		case r < utf8.RuneSelf && r != 0x7f:
			if c := byte(r); c >= 0x20 && c != '"' && c != '\\' {
				dst = append(dst, c)
			} else {
				dst = appendEscape(dst, c)
			}
		case r > 0xffff:
			dst = append(dst, '\\', 'U', '0', '0', hexDigits[r>>20&15], hexDigits[r>>16&15],
				hexDigits[r>>12&15], hexDigits[r>>8&15], hexDigits[r>>4&15], hexDigits[r&15])
		default:
			dst = appendUnicodeEscape(dst, r)
		}
	}
	return append(dst, '"')
}

// Decode reads one document of up to 16 MiB. Aliases are followed within a limit. Keys that are not text become text
// as in JSON, a !!set is the list of its members, !!omap and !!pairs are lists of pairs.
func (s yamlSerializer) Decode(data []byte) (v any, err error) {
	defer func() {
		if r := recover(); r != nil {
			v, err = decoded(nil, s, fmt.Errorf("yaml: %v", r))
		}
	}()
	node, err := parseYAML(data)
	if err != nil {
		return decoded(nil, s, err)
	}
	r := yamlReader{aliasBudget: maxAliasBytes}
	v, err = r.value(node, 0)
	return decoded(v, s, err)
}

const (
	maxYAMLNodes  = 1 << 20 // a node takes some 200 bytes while it is read
	maxAliasBytes = 4 << 20 // what aliases may add to a document
)

var errYAMLNodes = errors.New("document has too many parts")

// parseYAML returns nil for an empty document, which is None.
func parseYAML(data []byte) (*yaml.Node, error) {
	if err := checkSize(data, maxCostlyBody); err != nil {
		return nil, err
	}
	if marks := countMarks(data); marks > maxYAMLNodes {
		return nil, errYAMLNodes
	}
	d := yaml.NewDecoder(bytes.NewReader(data))
	var doc, more yaml.Node
	if err := d.Decode(&doc); err != nil {
		if errors.Is(err, io.EOF) {
			return nil, nil
		}
		return nil, err
	}
	if err := d.Decode(&more); !errors.Is(err, io.EOF) {
		return nil, errTrailing
	}
	if doc.Kind != yaml.DocumentNode || len(doc.Content) == 0 {
		return nil, nil
	}
	return doc.Content[0], nil
}

// countMarks counts the bytes one of which stands before every node: an upper bound of their number, for the price of
// one look at each byte.
func countMarks(data []byte) (n int) {
	for _, c := range data {
		switch c {
		case '\n', '\r', ',', '[', '{', ':', '-', '?', '*':
			n++
		}
	}
	return n
}

// yamlReader turns nodes into canonical values.
type yamlReader struct {
	aliasBudget int
	inAlias     int
}

func (r *yamlReader) value(n *yaml.Node, depth int) (any, error) {
	if n == nil {
		return nil, nil
	}
	if depth > maxTreeDepth {
		return nil, errTooDeep
	}
	if r.inAlias > 0 {
		if r.aliasBudget -= len(n.Value) + 16; r.aliasBudget < 0 {
			return nil, errors.New("aliases expand too far")
		}
	}
	switch n.Kind {
	case yaml.AliasNode:
		r.inAlias++
		v, err := r.value(n.Alias, depth+1)
		r.inAlias--
		return v, err
	case yaml.ScalarNode:
		return yamlScalar(n)
	case yaml.SequenceNode:
		return r.list(n, depth)
	case yaml.MappingNode:
		return r.mapping(n, depth)
	}
	return nil, fmt.Errorf("unexpected kind of node in line %d", n.Line)
}

// explicitTag returns the short form of a tag the document spells out, "" where there is none.
func explicitTag(n *yaml.Node) string {
	if n.Style&yaml.TaggedStyle == 0 {
		return ""
	}
	return n.ShortTag()
}

func tagError(n *yaml.Node) error { return fmt.Errorf("tag %s is not safe to load", n.ShortTag()) }

func (r *yamlReader) list(n *yaml.Node, depth int) (any, error) {
	switch explicitTag(n) {
	case "", "!!seq":
	case "!!omap", "!!pairs":
		return r.pairs(n, depth)
	default:
		return nil, tagError(n)
	}
	list := make([]any, len(n.Content))
	for i, item := range n.Content {
		v, err := r.value(item, depth+1)
		if err != nil {
			return nil, err
		}
		list[i] = v
	}
	return list, nil
}

func (r *yamlReader) pairs(n *yaml.Node, depth int) (any, error) {
	list := make([]any, len(n.Content))
	for i, item := range n.Content {
		if item.Kind != yaml.MappingNode || len(item.Content) != 2 {
			return nil, fmt.Errorf("%s of something else than pairs", n.ShortTag())
		}
		key, err := r.value(item.Content[0], depth+1)
		if err != nil {
			return nil, err
		}
		v, err := r.value(item.Content[1], depth+1)
		if err != nil {
			return nil, err
		}
		list[i] = []any{key, v}
	}
	return list, nil
}

func (r *yamlReader) mapping(n *yaml.Node, depth int) (any, error) {
	switch explicitTag(n) {
	case "", "!!map":
		dict := make(map[string]any, len(n.Content)/2)
		return dict, r.fill(dict, n, depth)
	case "!!set":
		list := make([]any, 0, len(n.Content)/2)
		for i := 0; i < len(n.Content); i += 2 {
			v, err := r.value(n.Content[i], depth+1)
			if err != nil {
				return nil, err
			}
			list = append(list, v)
		}
		return list, nil
	}
	return nil, tagError(n)
}

// fill stores the pairs of n. Those it merges from elsewhere (<<) come first, so that its own win.
func (r *yamlReader) fill(dict map[string]any, n *yaml.Node, depth int) error {
	for i := 0; i < len(n.Content); i += 2 {
		if isMerge(n.Content[i]) {
			if err := r.merge(dict, n.Content[i+1], depth+1); err != nil {
				return err
			}
		}
	}
	for i := 0; i < len(n.Content); i += 2 {
		if isMerge(n.Content[i]) {
			continue
		}
		key, err := r.value(n.Content[i], depth+1)
		if err != nil {
			return err
		}
		name, err := value.KeyText(key)
		if err != nil {
			return err
		}
		if dict[name], err = r.value(n.Content[i+1], depth+1); err != nil {
			return err
		}
	}
	return nil
}

func isMerge(n *yaml.Node) bool { return isPlain(n) && n.Value == "<<" }

func (r *yamlReader) merge(dict map[string]any, n *yaml.Node, depth int) error {
	if depth > maxTreeDepth {
		return errTooDeep
	}
	switch n.Kind {
	case yaml.AliasNode:
		r.inAlias++
		defer func() { r.inAlias-- }()
		if r.aliasBudget -= 16; r.aliasBudget < 0 {
			return errors.New("aliases expand too far")
		}
		return r.merge(dict, n.Alias, depth+1)
	case yaml.MappingNode:
		return r.fill(dict, n, depth)
	case yaml.SequenceNode:
		for i := len(n.Content) - 1; i >= 0; i-- { // the first one wins
			if err := r.merge(dict, n.Content[i], depth+1); err != nil {
				return err
			}
		}
		return nil
	}
	return errors.New("only a mapping can be merged")
}

// isPlain reports whether the document leaves the type of a scalar to its text.
func isPlain(n *yaml.Node) bool {
	const marked = yaml.TaggedStyle | yaml.DoubleQuotedStyle | yaml.SingleQuotedStyle | yaml.LiteralStyle | yaml.FoldedStyle
	return n.Kind == yaml.ScalarNode && n.Style&marked == 0
}

func yamlScalar(n *yaml.Node) (any, error) {
	if isPlain(n) {
		return resolveYAML(n.Value)
	}
	tag := explicitTag(n)
	if tag == "" || tag == "!!str" || tag == "!" {
		return n.Value, nil
	}
	if tag == "!!binary" {
		return base64.StdEncoding.DecodeString(strings.Join(strings.Fields(n.Value), ""))
	}
	v, err := resolveYAML(n.Value)
	if err != nil {
		return nil, err
	}
	return asTagged(n, tag, v)
}

// asTagged checks that the text of a scalar is what its tag says.
func asTagged(n *yaml.Node, tag string, v any) (any, error) {
	ok := false
	switch tag {
	case "!!null":
		return nil, nil
	case "!!bool":
		_, ok = v.(bool)
	case "!!int":
		ok = value.PythonType(v) == "int"
	case "!!float":
		if v, ok = v.(float64); !ok { // spelled out, it need not look like one: !!float 5
			f, err := strconv.ParseFloat(strings.ReplaceAll(n.Value, "_", ""), 64)
			v, ok = f, err == nil
		}
	case "!!timestamp":
		ok = value.PythonType(v) == "datetime" || value.PythonType(v) == "date"
	default:
		return nil, tagError(n)
	}
	if !ok {
		return nil, fmt.Errorf("invalid %s in line %d", tag, n.Line)
	}
	return v, nil
}
