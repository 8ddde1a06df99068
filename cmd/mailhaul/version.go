package main

import (
	"runtime"
	"runtime/debug"

	"github.com/spf13/cobra"
)

// release is set when a release is built: -ldflags "-X main.release=1.2.3".
var release = ""

func newVersion(a *app) *cobra.Command {
	return &cobra.Command{
		Use:     "version",
		Short:   "Print the version",
		Example: "  mailhaul version\n  mailhaul version --json",
		Args:    arguments(0, 0, "no argument"),
		RunE:    func(*cobra.Command, []string) error { return a.version() },
	}
}

// versionText is the release, or what the build knows of itself.
func versionText() string {
	if release != "" {
		return release
	}
	if info, ok := debug.ReadBuildInfo(); ok && info.Main.Version != "" && info.Main.Version != "(devel)" {
		return info.Main.Version
	}
	return "development"
}

func (a *app) version() error {
	revision := ""
	if info, ok := debug.ReadBuildInfo(); ok {
		for _, s := range info.Settings {
			if s.Key == "vcs.revision" {
				revision = s.Value
			}
		}
	}
	a.ui.Result("mailhaul %s, %s, %s/%s", versionText(), runtime.Version(), runtime.GOOS, runtime.GOARCH)
	a.ui.Object(map[string]string{
		"type": "version", "version": versionText(), "revision": revision, "go": runtime.Version(), "os": runtime.GOOS, "arch": runtime.GOARCH,
	})
	return nil
}
