// Package deploy tests what an installation consists of.
package deploy

import (
	"os"
	"path"
	"path/filepath"
	"strings"
	"testing"

	"sigs.k8s.io/yaml"
)

// serviceFile holds a unit file's settings by "Section.Key", in file order.
type serviceFile map[string][]string

func readService(t *testing.T, name string) serviceFile {
	t.Helper()
	text, err := os.ReadFile(name)
	if err != nil {
		t.Fatal(err)
	}
	settings, section := serviceFile{}, ""
	for i, line := range strings.Split(string(text), "\n") {
		switch {
		case line == "" || strings.HasPrefix(line, "#"):
		case strings.HasPrefix(line, "["):
			section = strings.Trim(line, "[]")
		default:
			key, value, ok := strings.Cut(line, "=")
			if !ok || section == "" || strings.ContainsAny(key, " \t") {
				t.Fatalf("%s:%d: %q is no setting", name, i+1, line)
			}
			settings[section+"."+key] = append(settings[section+"."+key], value)
		}
	}
	return settings
}

// only returns a setting that must be there exactly once.
func (s serviceFile) only(t *testing.T, key string) string {
	t.Helper()
	if len(s[key]) != 1 {
		t.Fatalf("%s is set %d times, want once", key, len(s[key]))
	}
	return s[key][0]
}

func TestServicesFitTheSampleConfigs(t *testing.T) {
	for _, role := range []string{"station", "unit", "host"} {
		t.Run(role, func(t *testing.T) {
			service := readService(t, filepath.Join("systemd", "sandbar-"+role+".service"))
			argv := strings.Fields(service.only(t, "Service.ExecStart"))
			want := []string{"/usr/bin/sandbar", role, "run", "--config", "/etc/sandbar/" + role + ".yaml"}
			if strings.Join(argv, " ") != strings.Join(want, " ") {
				t.Errorf("ExecStart is %q, want %q", argv, want)
			}
			if user := service.only(t, "Service.User"); user != "sandbar" {
				t.Errorf("runs as %s, want sandbar", user)
			}
			if code := service.only(t, "Service.RestartPreventExitStatus"); code != "2" {
				t.Errorf("restarts after a usage error: RestartPreventExitStatus is %q", code)
			}

			config := readConfig(t, filepath.Join("config", role+".yaml"))
			mustLieInState(t, service, config["data"].(string))
			if media, ok := config["media"].([]any); ok {
				for _, m := range media {
					mustLieInState(t, service, path.Dir(m.(string)))
				}
			}
		})
	}
}

func readConfig(t *testing.T, name string) map[string]any {
	t.Helper()
	text, err := os.ReadFile(name)
	if err != nil {
		t.Fatal(err)
	}
	config := map[string]any{}
	if err := yaml.UnmarshalStrict(text, &config); err != nil {
		t.Fatalf("%s: %v", name, err)
	}
	if _, ok := config["data"].(string); !ok {
		t.Fatalf("%s: data is %v, want a folder", name, config["data"])
	}
	return config
}

// mustLieInState checks that the service makes the folder and may write to it:
// all else is read-only to it.
func mustLieInState(t *testing.T, service serviceFile, folder string) {
	t.Helper()
	for _, state := range strings.Fields(service.only(t, "Service.StateDirectory")) {
		if path.Join("/var/lib", state) == folder {
			return
		}
	}
	t.Errorf("%s is not among the service's StateDirectory= %v", folder, service["Service.StateDirectory"])
}
