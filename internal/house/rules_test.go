package house

import (
	"fmt"
	"go/ast"
	"os"
	"path"
	"regexp"
	"slices"
	"strings"
	"testing"
)

// maxLines is where a file must have been split long since; the habit is 400.
const maxLines = 800

// topLevel lists the folders that may lie at the root; each has its meaning
// in docs/architecture.md.
var topLevel = []string{
	"api", "chaos", "cmd", "console", "controlplane", "dataplane",
	"deploy", "docs", "fsm", "hostlib", "internal", "san",
	// build products, never committed
	"bin", "build",
}

// forbiddenCalls are package functions that no package outside cmd may call,
// each with what to do instead.
var forbiddenCalls = map[string]string{
	"os.Exit":         "return an error; cmd/sandbar alone ends the process",
	"log.Fatal":       "return an error",
	"log.Fatalf":      "return an error",
	"log.Fatalln":     "return an error",
	"log.Panic":       "return an error",
	"log.Panicf":      "return an error",
	"log.Panicln":     "return an error",
	"log.Print":       "log through the *slog.Logger that you were given",
	"log.Printf":      "log through the *slog.Logger that you were given",
	"log.Println":     "log through the *slog.Logger that you were given",
	"fmt.Print":       "write to the io.Writer that you were given",
	"fmt.Printf":      "write to the io.Writer that you were given",
	"fmt.Println":     "write to the io.Writer that you were given",
	"slog.Debug":      "log through the *slog.Logger that you were given",
	"slog.Info":       "log through the *slog.Logger that you were given",
	"slog.Warn":       "log through the *slog.Logger that you were given",
	"slog.Error":      "log through the *slog.Logger that you were given",
	"slog.Default":    "take a *slog.Logger",
	"slog.SetDefault": "take a *slog.Logger",
}

// unfinished matches the marks that people leave in work they mean to finish.
// The words are put together so that this file does not match itself.
var unfinished = regexp.MustCompile(`\b(` + strings.Join([]string{"TO" + "DO", "FIX" + "ME", "XX" + "X"}, "|") + `)\b`)

// bubbles are the packages whose tests run in synctest bubbles, where time is
// fake and sleeping costs nothing. A bubble is often made by a helper in another
// file than the test's, so that this is known per package only.
type bubbles map[string]bool

func findBubbles(files []*sourceFile) bubbles {
	b := bubbles{}
	for _, f := range files {
		if f.isTest() && slices.Contains(f.imports(), "testing/synctest") {
			b[f.dir] = true
		}
	}
	return b
}

// fileFindings judges one file by itself.
func fileFindings(f *sourceFile, b bubbles) []string {
	if f.isGenerated() {
		return nil
	}
	var findings []string
	if f.lines > maxLines {
		findings = append(findings, fmt.Sprintf("%s has %d lines, more than %d: split it by subject", f.path, f.lines, maxLines))
	}
	for _, group := range f.ast.Comments {
		if unfinished.MatchString(group.Text()) {
			findings = append(findings, f.at(group.Pos())+": a mark of unfinished work; finish it or make it an issue")
		}
	}
	for _, decl := range f.ast.Decls {
		if fn, ok := decl.(*ast.FuncDecl); ok && fn.Recv == nil && fn.Name.Name == "init" {
			findings = append(findings, f.at(fn.Pos())+": func init runs before anybody asked; construct it explicitly")
		}
	}
	return append(findings, callFindings(f, b)...)
}

// callFindings judges the calls of one file.
func callFindings(f *sourceFile, b bubbles) []string {
	var findings []string
	names := importNames(f)
	ast.Inspect(f.ast, func(n ast.Node) bool {
		call, ok := n.(*ast.CallExpr)
		if !ok {
			return true
		}
		name := calledName(call, names)
		if why := judgeCall(f, name, b); why != "" {
			findings = append(findings, fmt.Sprintf("%s: %s: %s", f.at(call.Pos()), name, why))
		}
		return true
	})
	return findings
}

func judgeCall(f *sourceFile, name string, b bubbles) string {
	if f.isTest() {
		if name == "time.Sleep" && !b[f.dir] {
			return "a test that sleeps is slow and still flaky; wait for the event, or use testing/synctest"
		}
		return ""
	}
	if within(f.dir, "cmd") {
		return ""
	}
	if name == "panic" {
		return "return an error"
	}
	if within(f.dir, "chaos") && f.ast.Name.Name == "main" {
		return ""
	}
	return forbiddenCalls[name]
}

// calledName is "panic" for the builtin and "pkg.Func" for a package's
// function, by the last element of its import path; else "".
func calledName(call *ast.CallExpr, names map[string]string) string {
	switch fun := call.Fun.(type) {
	case *ast.Ident:
		if fun.Name == "panic" {
			return fun.Name
		}
	case *ast.SelectorExpr:
		x, ok := fun.X.(*ast.Ident)
		if !ok {
			return ""
		}
		if imported, ok := names[x.Name]; ok {
			return path.Base(imported) + "." + fun.Sel.Name
		}
	}
	return ""
}

// importNames maps the names that a file uses for its imports to their paths.
func importNames(f *sourceFile) map[string]string {
	names := make(map[string]string, len(f.ast.Imports))
	for i, imported := range f.imports() {
		if spec := f.ast.Imports[i]; spec.Name != nil {
			names[spec.Name.Name] = imported
			continue
		}
		names[path.Base(imported)] = imported
	}
	return names
}

// packageFindings asks every package for a doc.go with a package comment (a
// command may keep it in main.go).
func packageFindings(files []*sourceFile) []string {
	documented := map[string]bool{}
	for _, f := range files {
		if f.isTest() || f.isGenerated() {
			continue
		}
		documented[f.dir] = documented[f.dir] || hasPackageDoc(f)
	}
	var findings []string
	for dir, ok := range documented {
		if !ok {
			findings = append(findings, dir+" has no doc.go whose package comment says what it owns and what it must never do")
		}
	}
	slices.Sort(findings)
	return findings
}

func hasPackageDoc(f *sourceFile) bool {
	if path.Base(f.path) != "doc.go" && f.ast.Name.Name != "main" {
		return false
	}
	return f.ast.Doc != nil && len(strings.Fields(f.ast.Doc.Text())) >= 8
}

func TestEveryFileKeepsTheHouseRules(t *testing.T) {
	files := sourceTree(t)
	b := findBubbles(files)
	for _, f := range files {
		report(t, fileFindings(f, b))
	}
}

func TestEveryPackageSaysWhatItIs(t *testing.T) {
	report(t, packageFindings(sourceTree(t)))
}

func TestTopLevelFoldersAreTheAgreedOnes(t *testing.T) {
	entries, err := os.ReadDir(moduleRoot(t))
	if err != nil {
		t.Fatal(err)
	}
	for _, e := range entries {
		if e.IsDir() && !strings.HasPrefix(e.Name(), ".") && !slices.Contains(topLevel, e.Name()) {
			t.Errorf("%s/ lies at the root; the folders there are %s", e.Name(), strings.Join(topLevel, " "))
		}
		if !e.IsDir() && strings.HasSuffix(e.Name(), ".go") {
			t.Errorf("%s lies at the root; Go files live in packages below it", e.Name())
		}
	}
}

func TestFileRulesFindViolations(t *testing.T) {
	const head = "package p\n"
	for _, c := range []struct {
		name, file, src string
		want            int
	}{
		{"clean", "san/a.go", head + "func f() error { return nil }\n", 0},
		{"panic", "dataplane/a.go", head + "func f() { panic(1) }\n", 1},
		{"panic in a test", "dataplane/a_test.go", head + "func f() { panic(1) }\n", 0},
		{"panic in a comment", "dataplane/a.go", head + "// f does not panic(1)\nfunc f() {}\n", 0},
		{"exit", "hostlib/a.go", head + "import \"os\"\nfunc f() { os.Exit(1) }\n", 1},
		{"exit under another name", "hostlib/a.go", head + "import o \"os\"\nfunc f() { o.Exit(1) }\n", 1},
		{"exit of something else", "hostlib/a.go", head + "func f(os interface{ Exit(int) }) { os.Exit(1) }\n", 0},
		{"exit in cmd", "cmd/sandbar/a.go", head + "import \"os\"\nfunc f() { os.Exit(1) }\n", 0},
		{"fatal", "fsm/a.go", head + "import \"log\"\nfunc f() { log.Fatalf(\"\") }\n", 1},
		{"global logger", "fsm/a.go", head + "import \"log/slog\"\nfunc f() { slog.Info(\"\") }\n", 1},
		{"stdout", "fsm/a.go", head + "import \"fmt\"\nfunc f() { fmt.Println() }\n", 1},
		{"sleep in a test", "fsm/a_test.go", head + "import \"time\"\nfunc f() { time.Sleep(1) }\n", 1},
		{"sleep in a bubble", "fsm/a_test.go", head + "import (\"time\"; \"testing/synctest\")\nfunc f() { time.Sleep(1) }\nvar _ = synctest.Wait\n", 0},
		{"init", "fsm/a.go", head + "func init() {}\n", 1},
		{"method init", "fsm/a.go", head + "type T struct{}\nfunc (T) init() {}\n", 0},
		{"mark", "fsm/a.go", head + "// TO" + "DO: later\nfunc f() {}\n", 1},
		{"long", "fsm/a.go", head + strings.Repeat("\n", maxLines), 1},
		{"long but generated", "api/gen/a.go", head + strings.Repeat("\n", maxLines), 0},
	} {
		t.Run(c.name, func(t *testing.T) {
			f := parseFile(t, c.file, []byte(c.src))
			findings := fileFindings(f, findBubbles([]*sourceFile{f}))
			if len(findings) != c.want {
				t.Errorf("%d findings, want %d: %v", len(findings), c.want, findings)
			}
		})
	}
}

func TestPackageRulesFindViolations(t *testing.T) {
	const words = "owns this and that, and must never do the other thing."
	for _, c := range []struct {
		name, file, src string
		ok              bool
	}{
		{"doc.go", "fsm/doc.go", "// Package fsm " + words + "\npackage fsm\n", true},
		{"elsewhere", "fsm/fsm.go", "// Package fsm " + words + "\npackage fsm\n", false},
		{"too little", "fsm/doc.go", "// Package fsm is here.\npackage fsm\n", false},
		{"none", "fsm/doc.go", "package fsm\n", false},
		{"command", "cmd/sandbar/main.go", "// Command sandbar " + words + "\npackage main\n", true},
		{"tests alone", "chaos/a_test.go", "package chaos\n", true},
	} {
		t.Run(c.name, func(t *testing.T) {
			findings := packageFindings([]*sourceFile{parseFile(t, c.file, []byte(c.src))})
			if ok := len(findings) == 0; ok != c.ok {
				t.Errorf("accepted is %v, want %v: %v", ok, c.ok, findings)
			}
		})
	}
}
