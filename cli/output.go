package cli

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math"
	"os"
	"slices"
	"strings"
	"text/tabwriter"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"
	"go.yaml.in/yaml/v3"

	"github.com/gelery/gelery/protocol/serialization"
)

// output is the flag -o: how a command prints its data. The default is a table on a terminal and plain elsewhere: the
// same rows without a heading, columns separated by one tab.
type output string

const (
	outputTable output = "table"
	outputPlain output = "plain"
	outputJSON  output = "json"
	outputJSONL output = "jsonl" // a document a line, as it comes
	outputYAML  output = "yaml"
	outputName  output = "name" // names alone, a line each
)

func (o *output) add(cmd *cobra.Command, modes ...output) {
	names := make([]string, len(modes))
	for i, m := range modes {
		names[i] = string(m)
	}
	var flag pflag.Value = o
	if slices.Contains(modes, outputJSONL) {
		flag = (*streamOutput)(o)
	}
	if slices.Contains(modes, outputName) {
		flag = &namedOutput{(*streamOutput)(o)}
	}
	cmd.Flags().VarP(flag, "output", "o", "`form` of the output: "+strings.Join(names, ", "))
	_ = cmd.RegisterFlagCompletionFunc("output", cobra.FixedCompletions(names, cobra.ShellCompDirectiveNoFileComp))
}

func (o *output) String() string { return string(*o) }
func (o *output) Type() string   { return "form" }

func (o *output) Set(text string) error {
	switch m := output(text); m {
	case outputTable, outputPlain, outputJSON:
		*o = m
		return nil
	}
	return fmt.Errorf("%q is not table, plain or json", text)
}

// streamOutput is an output of a command that has more forms.
type streamOutput output

func (o *streamOutput) String() string { return string(*o) }
func (o *streamOutput) Type() string   { return "form" }

func (o *streamOutput) Set(text string) error {
	switch m := output(text); m {
	case outputTable, outputPlain, outputJSON, outputJSONL, outputYAML:
		*o = streamOutput(m)
		return nil
	}
	return fmt.Errorf("%q is not table, plain, json, jsonl or yaml", text)
}

// namedOutput is an output of a command that prints names, too.
type namedOutput struct{ *streamOutput }

func (o *namedOutput) Set(text string) error {
	if output(text) == outputName {
		*o.streamOutput = streamOutput(outputName)
		return nil
	}
	return o.streamOutput.Set(text)
}

// only refuses the forms that a command has not.
func (o output) only(modes ...output) error {
	if o == "" || slices.Contains(modes, o) {
		return nil
	}
	return usage("there is no --output "+string(o)+" here", "", "see --help")
}

// document writes a document in one of the forms that programs read.
func (o output) document(w io.Writer, v any) error {
	if o == outputYAML {
		return writeYAML(w, v, "")
	}
	return writeJSON(w, v)
}

// next writes a document of which there may be several, one behind the other.
func (o output) next(w io.Writer, v any) error {
	if o == outputYAML {
		return writeYAML(w, v, "---\n")
	}
	return writeJSON(w, v)
}

// list writes documents in the forms that programs read: all as one or, with -o jsonl, one a line. Not done: the form is one for people.
func list[T any](w io.Writer, o output, every watch, all []T) (done bool, err error) {
	switch o {
	case outputJSON, outputYAML:
		if all == nil {
			all = []T{} // [] rather than null
		}
		return true, every.document(o)(w, all)
	case outputJSONL:
		return true, writeLines(w, all)
	}
	return false, nil
}

// writeYAML writes what writeJSON would, with the members in the same order, in the style that people write.
func writeYAML(w io.Writer, v any, before string) error {
	text, err := json.Marshal(v)
	if err != nil {
		return err
	}
	d := json.NewDecoder(bytes.NewReader(text))
	d.UseNumber()
	node, err := yamlNode(d)
	if err != nil {
		return err
	}
	b := bytes.NewBufferString(before)
	e := yaml.NewEncoder(b)
	e.SetIndent(2)
	if err := errors.Join(e.Encode(node), e.Close()); err != nil {
		return err
	}
	_, err = b.WriteTo(w)
	return err
}

// yamlNode makes a node of the next value. It does not take the JSON for YAML, which it nearly is: YAML has no pairs of escapes for a
// character, such as an emoji.
func yamlNode(d *json.Decoder) (*yaml.Node, error) {
	token, err := d.Token()
	if err != nil {
		return nil, err
	}
	n := &yaml.Node{Kind: yaml.ScalarNode}
	switch v := token.(type) {
	case json.Delim:
		n.Kind = yaml.MappingNode
		if v == '[' {
			n.Kind = yaml.SequenceNode
		}
		for d.More() { // in an object a name, then its value
			child, err := yamlNode(d)
			if err != nil {
				return nil, err
			}
			n.Content = append(n.Content, child)
		}
		_, err = d.Token()
	case json.Number:
		n.Value = v.String()
		if !strings.Contains(n.Value, ".") { // which Python's reader, of YAML 1.1, wants in a float
			n.Value = strings.Replace(strings.ToLower(n.Value), "e", ".0e", 1)
		}
	default: // a string, true, false, null
		err = n.Encode(v)
	}
	return n, err
}

// table writes rows below a heading. Cells must not hold tabs or line ends.
func (o output) table(w io.Writer, heading []string, rows [][]string) error {
	if o.isPlain(w) {
		for _, r := range rows {
			if _, err := fmt.Fprintln(w, strings.Join(r, "\t")); err != nil {
				return err
			}
		}
		return nil
	}
	tw := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
	for _, r := range append([][]string{heading}, rows...) {
		fmt.Fprintln(tw, strings.Join(r, "\t"))
	}
	return tw.Flush()
}

func (o output) isPlain(w io.Writer) bool { return o == outputPlain || o == "" && !isTerminal(w) }

func isTerminal(w any) bool {
	if _, kept := w.(*screenBuffer); kept {
		return true
	}
	f, ok := w.(*os.File)
	if !ok {
		return false
	}
	info, err := f.Stat()
	if err != nil || info.Mode()&os.ModeCharDevice == 0 {
		return false
	}
	null, err := os.Stat(os.DevNull) // which may be behind any of the standard files
	return err != nil || !os.SameFile(info, null)
}

// writeJSON writes one document on one line, with <, > and & as they are: it goes to jq, not into a web page.
func writeJSON(w io.Writer, v any) error {
	e := json.NewEncoder(w)
	e.SetEscapeHTML(false)
	return e.Encode(v)
}

// wireJSON is a canonical value as kombu's JSON writes it: what has no JSON form (dates, bytes, decimals) is typed. NaN and
// the infinities, which kombu writes bare, are strings here, because JSON has no others.
func wireJSON(v any) (json.RawMessage, error) {
	return serialization.AppendJSON(nil, finite(v))
}

// finite replaces the floats JSON has no form for, in a copy of the containers they are in.
func finite(v any) any {
	switch v := v.(type) {
	case float64:
		switch {
		case math.IsNaN(v):
			return "NaN"
		case math.IsInf(v, 1):
			return "Infinity"
		case math.IsInf(v, -1):
			return "-Infinity"
		}
	case []any:
		list := make([]any, len(v))
		for i, e := range v {
			list[i] = finite(e)
		}
		return list
	case map[string]any:
		object := make(map[string]any, len(v))
		for k, e := range v {
			object[k] = finite(e)
		}
		return object
	}
	return v
}
