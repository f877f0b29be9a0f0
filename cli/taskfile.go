package cli

import (
	"slices"

	"github.com/spf13/cobra"

	"github.com/gelery/gelery/worker/taskfile"
)

// addTaskFiles adds the flag for tasks without code.
func addTaskFiles(cmd *cobra.Command, paths *[]string) {
	cmd.Flags().StringArrayVar(paths, "tasks", nil, "`path` of a YAML or JSON file of programs and HTTP endpoints to run as tasks; may be repeated")
	_ = cmd.MarkFlagFilename("tasks", "yaml", "yml", "json")
}

// registerTaskFiles registers the tasks of the files.
func (a *app) registerTaskFiles(paths []string) error {
	for _, path := range paths {
		definitions, err := taskfile.Load(path)
		if err != nil {
			return usage("--tasks: "+err.Error(), "", "docs/tasks-without-code.md tells what such a file holds")
		}
		taken := a.mux.Names()
		for _, d := range definitions {
			if slices.Contains(taken, d.Name) {
				return usage("--tasks: "+path+": the name "+d.Name+" is taken by another task", "", "")
			}
			a.mux.Register(d)
		}
	}
	return nil
}
