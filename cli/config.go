package cli

import (
	"encoding/json"
	"errors"
	"fmt"

	"github.com/spf13/cobra"

	"github.com/gelery/gelery/settings"
)

// configDocument is one element of what `config show -o json` prints.
type configDocument struct {
	Name   string `json:"name"`
	Value  any    `json:"value"`
	Origin string `json:"origin"` // "default" where nothing sets it
}

// settingDocument is one element of what `config settings -o json` prints.
type settingDocument struct {
	Name    string `json:"name"`
	Type    string `json:"type"`
	Default string `json:"default,omitempty"`
	Meaning string `json:"meaning"`
	Own     bool   `json:"own"` // Celery has no setting of this name
}

func configCommand(a *app) *cobra.Command {
	cmd := &cobra.Command{
		Use:     "config",
		GroupID: groupOperate,
		Short:   "Show and check settings",
		Long: `Show and check settings

The settings are Celery's, under Celery's names. A file of them is named by --config or ` + settings.FileVariable + `. Weaker than the
file are only the defaults; stronger are the variables of the environment (CELERY_TASK_DEFAULT_QUEUE), and stronger than
those are options.

` + exitCodes,
		Example: `  gelery --config gelery.yaml config show
  gelery config check gelery.yaml
  gelery config settings`,
		Args: cobra.ArbitraryArgs, // an unknown command is answered by RunE
		RunE: noSubcommand,

		SuggestionsMinimumDistance: 2,
	}
	cmd.Annotations = map[string]string{withoutSettings: "yes"}
	cmd.AddCommand(configShowCommand(a), configCheckCommand(a), configSettingsCommand(a))
	return cmd
}

func configShowCommand(a *app) *cobra.Command {
	var form string
	var all bool
	cmd := &cobra.Command{
		Use:   "show",
		Short: "Show what is set, and where",
		Long: `Show what is set, and where

Passwords in URLs are left out, and values whose names speak of a secret are hidden. -o json prints
[{"name", "value", "origin"}].

` + exitCodes,
		Example: `  gelery --config gelery.yaml config show
  gelery config show --all --output json`,
		Args: cobra.NoArgs,
		RunE: func(*cobra.Command, []string) error { return a.showConfig(form, all) },
	}
	cmd.Flags().StringVarP(&form, "output", "o", "yaml", "`form` of the output: yaml, json")
	cmd.Flags().BoolVar(&all, "all", false, "show the defaults too")
	return cmd
}

func (a *app) showConfig(form string, all bool) error {
	documents := []configDocument{}
	for _, v := range a.settings.Values() {
		documents = append(documents, configDocument{v.Name, v.Shown(), v.Origin})
	}
	if all {
		for _, s := range settings.Table() {
			if _, set := a.settings.Get(s.Name); !set {
				documents = append(documents, configDocument{s.Name, s.Default, "default"})
			}
		}
	}
	switch form {
	case "json":
		return writeJSON(a.stdout, documents)
	case "yaml":
	default:
		return usage(fmt.Sprintf("--output %q is unknown", form), "", "use yaml or json")
	}
	for _, d := range documents {
		value := fmt.Sprint(d.Value)
		if d.Origin != "default" {
			text, err := json.Marshal(d.Value) // which is YAML
			if err != nil {
				return err
			}
			value = string(text)
		}
		if _, err := fmt.Fprintf(a.stdout, "%s: %s  # %s\n", d.Name, firstOf(value, "null"), d.Origin); err != nil {
			return err
		}
	}
	return nil
}

func configCheckCommand(a *app) *cobra.Command {
	return &cobra.Command{
		Use:   "check FILE",
		Short: "Look for mistakes in a file of settings",
		Long: `Look for mistakes in a file of settings

Each mistake is a line on standard error, with the line of the file, the name of the setting and what is allowed; there
is exit code 1 then.

` + exitCodes,
		Example:     `  gelery config check gelery.yaml`,
		Args:        exactlyOne("the path of a file"),
		Annotations: map[string]string{withoutSettings: "yes"},
		RunE: func(_ *cobra.Command, args []string) error {
			s := &settings.Settings{}
			err := s.ReadFile(args[0])
			if err == nil {
				err = s.Check()
			}
			if err == nil {
				err = errors.Join(s.CheckWorker(), s.CheckBeat())
			}
			if err != nil {
				fmt.Fprintln(a.stderr, err)
				return silent(exitFailed)
			}
			for _, unmet := range s.Unmet() {
				fmt.Fprintln(a.stderr, "warning: "+unmet)
			}
			for _, without := range s.Ignored() {
				fmt.Fprintln(a.stderr, "without an effect here: "+without)
			}
			_, err = fmt.Fprintf(a.stdout, "%s: %s, no mistake\n", args[0], plural(int64(len(s.Values())), "setting"))
			return err
		},
	}
}

func configSettingsCommand(a *app) *cobra.Command {
	var out output
	cmd := &cobra.Command{
		Use:   "settings",
		Short: "List the settings there are",
		Long: `List the settings there are

Those of Celery that have no effect here are not in the list; a file may hold them nevertheless.
-o json prints [{"name", "type", "default" if any, "meaning", "own"}]: own are those that Celery does not have.

` + exitCodes,
		Example:     `  gelery config settings`,
		Args:        cobra.NoArgs,
		Annotations: map[string]string{withoutSettings: "yes"},
		RunE: func(*cobra.Command, []string) error {
			if out == outputJSON {
				var documents []settingDocument
				for _, s := range settings.Table() {
					documents = append(documents, settingDocument{s.Name, string(s.Type), s.Default, s.Meaning, s.Own})
				}
				return writeJSON(a.stdout, documents)
			}
			var rows [][]string
			for _, s := range settings.Table() {
				rows = append(rows, []string{s.Name, string(s.Type), firstOf(s.Default, "-"), s.Meaning})
			}
			return out.table(a.stdout, []string{"NAME", "TYPE", "DEFAULT", "MEANING"}, rows)
		},
	}
	out.add(cmd, outputTable, outputPlain, outputJSON)
	return cmd
}
