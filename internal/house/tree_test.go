package house

import (
	"go/ast"
	"go/parser"
	"go/token"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
)

// module is the prefix of every import path of ours.
const module = "github.com/sandbar-san/sandbar"

// sourceFile is one parsed Go file of the tree.
type sourceFile struct {
	// path is relative to the module's root, with slashes.
	path string
	// dir is the package's folder, relative to the module's root.
	dir   string
	lines int
	fset  *token.FileSet
	ast   *ast.File
}

func (f *sourceFile) isTest() bool { return strings.HasSuffix(f.path, "_test.go") }

// isGenerated tells of files that no person edits; rules of style skip them.
func (f *sourceFile) isGenerated() bool { return within(f.dir, "api/gen") }

func (f *sourceFile) at(pos token.Pos) string {
	return f.path + ":" + strconv.Itoa(f.fset.Position(pos).Line)
}

// imports lists the file's import paths.
func (f *sourceFile) imports() []string {
	paths := make([]string, 0, len(f.ast.Imports))
	for _, spec := range f.ast.Imports {
		p, err := strconv.Unquote(spec.Path.Value)
		if err != nil {
			continue // the parser has refused such a file already
		}
		paths = append(paths, p)
	}
	return paths
}

// within tells whether dir is root or lies below it.
func within(dir, root string) bool {
	return dir == root || strings.HasPrefix(dir, root+"/")
}

// ours strips the module's prefix; ok is false for other people's packages.
func ours(importPath string) (dir string, ok bool) {
	if importPath == module {
		return ".", true
	}
	return strings.CutPrefix(importPath, module+"/")
}

// parseFile parses one file as if it lay at the given path of the tree.
func parseFile(t *testing.T, name string, src []byte) *sourceFile {
	t.Helper()
	fset := token.NewFileSet()
	parsed, err := parser.ParseFile(fset, name, src, parser.ParseComments|parser.SkipObjectResolution)
	if err != nil {
		t.Fatalf("cannot parse %s: %v", name, err)
	}
	return &sourceFile{
		path:  name,
		dir:   path.Dir(name),
		lines: strings.Count(string(src), "\n"),
		fset:  fset,
		ast:   parsed,
	}
}

// moduleRoot is where go.mod lies, two folders up from this package.
func moduleRoot(t *testing.T) string {
	t.Helper()
	root, err := filepath.Abs("../..")
	if err != nil {
		t.Fatal(err)
	}
	if _, err := os.Stat(filepath.Join(root, "go.mod")); err != nil {
		t.Fatalf("no go.mod two folders up: has internal/house moved? %v", err)
	}
	return root
}

// sourceTree parses every Go file of the module.
func sourceTree(t *testing.T) []*sourceFile {
	t.Helper()
	root := moduleRoot(t)
	var files []*sourceFile
	err := filepath.WalkDir(root, func(name string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		rel, err := filepath.Rel(root, name)
		if err != nil {
			return err
		}
		if d.IsDir() {
			if rel != "." && skipDir(d.Name()) {
				return filepath.SkipDir
			}
			return nil
		}
		if !strings.HasSuffix(name, ".go") {
			return nil
		}
		src, err := os.ReadFile(name)
		if err != nil {
			return err
		}
		files = append(files, parseFile(t, filepath.ToSlash(rel), src))
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	if len(files) < 5 {
		t.Fatalf("only %d Go files found below %s: the walk is wrong", len(files), root)
	}
	return files
}

// skipDir names the folders that the go command would not build either.
func skipDir(name string) bool {
	return strings.HasPrefix(name, ".") || strings.HasPrefix(name, "_") ||
		name == "testdata" || name == "node_modules"
}

// report fails the test once for each finding.
func report(t *testing.T, findings []string) {
	t.Helper()
	for _, f := range findings {
		t.Error(f)
	}
}
