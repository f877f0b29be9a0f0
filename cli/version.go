package cli

import (
	"fmt"
	"runtime"

	"github.com/spf13/cobra"

	"github.com/gelery/gelery/internal/moduleversion"
)

// versionDocument is what `version -o json` prints.
type versionDocument struct {
	Version  string `json:"version"`            // of the module; "(devel)" when built from a tree
	Revision string `json:"revision,omitempty"` // of the tree
	Go       string `json:"go"`
	Platform string `json:"platform"`
}

func (v versionDocument) String() string {
	text := "gelery " + v.Version
	if v.Revision != "" {
		text += " " + v.Revision
	}
	return text + " " + v.Go + " " + v.Platform
}

// readVersion finds the version of this module, which may be a dependency of the program's.
func readVersion() versionDocument {
	v := versionDocument{Go: runtime.Version(), Platform: runtime.GOOS + "/" + runtime.GOARCH}
	v.Version, v.Revision = moduleversion.Read()
	return v
}

func versionCommand(a *app) *cobra.Command {
	var out output
	cmd := &cobra.Command{
		Use:   "version",
		Short: "Print the version",
		Long: `Print the version

-o json prints {"version", "revision", "go", "platform"}.

Exit codes: 0 done, 2 wrong usage.`,
		Example: `  gelery version --output json`,
		Args:    cobra.NoArgs,
		RunE: func(*cobra.Command, []string) error {
			if out == outputJSON {
				return writeJSON(a.stdout, readVersion())
			}
			_, err := fmt.Fprintln(a.stdout, readVersion())
			return err
		},
	}
	out.add(cmd, outputPlain, outputJSON)
	return cmd
}
