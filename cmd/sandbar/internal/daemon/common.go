package daemon

import (
	"errors"
	"io"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"strings"

	"github.com/sandbar-san/sandbar/cmd/sandbar/internal/config"
	"github.com/sandbar-san/sandbar/internal/identity"
	"github.com/sandbar-san/sandbar/san"
)

// The keys that several roles have.
const (
	keyData          = "data"
	keyID            = "id"
	keyJoin          = "join"
	keyJoinTokenFile = "join-token-file"
	keyGossipTiming  = "gossip-timing"
	keyLogLevel      = "log-level"
	keyLogFormat     = "log-format"
)

// certificateFile is there once a part is enrolled.
const certificateFile = "identity/cert.pem"

// maxTokenFileBytes bounds a join token's file.
const maxTokenFileBytes = 4 << 10

// common are the keys of every role, around its own.
func common(role string, own ...config.Key) config.Keys {
	list := []config.Key{
		{Name: keyID, Help: "name of this " + role + ", unique among the " + role + "s"},
		{Name: keyData, Default: "/var/lib/sandbar/" + role, Help: "folder of all that it keeps"},
	}
	list = append(list, own...)
	list = append(list,
		config.Key{Name: keyJoin, Kind: config.List, Help: "host:port of stations (API) to join at; repeatable"},
		config.Key{Name: keyJoinTokenFile, Help: "file with the join token, for the first start"},
		config.Key{Name: keyLogLevel, Default: "info", OneOf: []string{"debug", "info", "warn", "error"}, Help: "least level that is logged"},
		config.Key{Name: keyLogFormat, Default: "text", OneOf: []string{"text", "json"}, Help: "form of the log, which goes to stderr"},
	)
	return config.Keys{Role: role, List: list}
}

// gossipTiming is the key of the roles that gossip.
func gossipTiming() config.Key {
	return config.Key{Name: keyGossipTiming, Default: "lan", OneOf: []string{"lan", "fast"},
		Help: "how soon lost members are noticed; fast costs packets"}
}

// address makes the keys of something that listens.
func address(name, what, listen string) []config.Key {
	return []config.Key{
		{Name: name + "-listen", Default: listen, Help: "address of " + what},
		{Name: name + "-advertise", Help: "the same as others reach it; needed where a machine with several addresses listens on all"},
	}
}

// identityOf checks the name that everything of a part is known by.
func identityOf(v *config.Values, role string) (string, error) {
	id := v.Text(keyID)
	if id == "" {
		return "", v.Missing(keyID)
	}
	return id, san.CheckName(role, id)
}

// logger makes the daemon's logger and, with it, mentions what looks like a mistake.
func logger(v *config.Values, w io.Writer) *slog.Logger {
	var level slog.Level
	if err := level.UnmarshalText([]byte(v.Text(keyLogLevel))); err != nil {
		level = slog.LevelInfo // unreachable: the key allows only names of levels
	}
	opts := &slog.HandlerOptions{Level: level}
	var h slog.Handler = slog.NewTextHandler(w, opts)
	if v.Text(keyLogFormat) == "json" {
		h = slog.NewJSONHandler(w, opts)
	}
	log := slog.New(h)
	for _, name := range v.Unknown {
		log.Warn("a variable is like ours but names no setting; it is ignored", "variable", name)
	}
	return log
}

// joinToken reads the join token. A part that is enrolled needs it no more, so that its file may
// be gone by then.
func joinToken(v *config.Values) (token string, enrolled bool, err error) {
	_, err = os.Stat(filepath.Join(v.Text(keyData), certificateFile))
	enrolled = err == nil
	name := v.Text(keyJoinTokenFile)
	if name == "" {
		return "", enrolled, nil
	}
	f, err := os.Open(name)
	if errors.Is(err, fs.ErrNotExist) && enrolled {
		return "", enrolled, nil
	}
	if err != nil {
		return "", enrolled, san.Errorf(san.KindInvalid, "%s: %w; put a join token there ('sandbar join-token create')", keyJoinTokenFile, err)
	}
	defer func() { _ = f.Close() }() // it was only read
	text, err := io.ReadAll(io.LimitReader(f, maxTokenFileBytes))
	if err != nil {
		return "", enrolled, san.Errorf(san.KindInvalid, "%s: %w", keyJoinTokenFile, err)
	}
	if _, err := identity.ParseJoinToken(string(text)); err != nil {
		return "", enrolled, san.Errorf(san.KindInvalid, "%s %s: %w", keyJoinTokenFile, name, err)
	}
	return strings.TrimSpace(string(text)), enrolled, nil
}

// memberToken is joinToken for a part that can't begin a cluster: until it is enrolled it needs a
// token and somebody to show it to.
func memberToken(v *config.Values, role, id string) (string, error) {
	token, enrolled, err := joinToken(v)
	switch {
	case err != nil || enrolled:
		return token, err
	case token == "":
		return "", san.Errorf(san.KindInvalid, "%s %s has not joined a cluster yet and has no join token: set %s ('sandbar join-token create' makes one)", role, id, keyJoinTokenFile)
	case len(v.List(keyJoin)) == 0:
		return "", san.Errorf(san.KindInvalid, "%s %s has not joined a cluster yet and knows no station: set %s to host:port of one", role, id, keyJoin)
	}
	return token, nil
}
