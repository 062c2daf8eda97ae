package hostlib_test

import (
	"context"
	"crypto/sha256"
	"fmt"
	"io"
	"log"
	"time"

	"github.com/sandbar-san/sandbar/hostlib"
)

// A program on a host that runs the agent asks for 80 MiB and uses them.
func Example() {
	c, err := hostlib.New(hostlib.Config{DataDir: "/var/lib/sandbar/host"})
	if err != nil {
		log.Fatal(err)
	}
	defer c.Close()
	ctx, cancel := context.WithTimeout(context.Background(), 30*time.Second)
	defer cancel()
	a, err := c.RequestStorage(ctx, hostlib.StorageRequest{Name: "journal", SizeBytes: 80 << 20})
	if err != nil {
		log.Fatal(err)
	}
	fmt.Println("at", a.Paths[0].Unit, a.Paths[0].Portal)
	v, err := c.Open(ctx, a.Name)
	if err != nil {
		log.Fatal(err)
	}
	if _, err := v.WriteAt([]byte("first entry"), 0); err != nil {
		log.Fatal(err)
	}
	if err := v.Flush(); err != nil { // from here on it survives a power cut
		log.Fatal(err)
	}
	if err := v.Close(); err != nil {
		log.Fatal(err)
	}
}

// Without an agent, a token that is scoped to the host does.
func ExampleNew_token() {
	c, err := hostlib.New(hostlib.Config{
		Endpoints: []string{"192.0.2.1:7420", "192.0.2.2:7420", "192.0.2.3:7420"},
		CAFile:    "/etc/sandbar/ca.pem", TokenFile: "/etc/sandbar/backup.token", Host: "backup",
	})
	if err != nil {
		log.Fatal(err)
	}
	defer c.Close()
	all, err := c.Assignments(context.Background())
	if err != nil {
		log.Fatal(err)
	}
	for _, a := range all {
		fmt.Println(a.Name, a.State)
	}
}

// A Volume is an io.ReaderAt, so that the standard library reads it.
func ExampleVolume_ReadAt() {
	c, err := hostlib.New(hostlib.Config{DataDir: "/var/lib/sandbar/host"})
	if err != nil {
		log.Fatal(err)
	}
	defer c.Close()
	v, err := c.Open(context.Background(), "journal")
	if err != nil {
		log.Fatal(err)
	}
	sum := sha256.New()
	if _, err := io.Copy(sum, io.NewSectionReader(v, 0, v.Size())); err != nil {
		log.Fatal(err)
	}
	fmt.Printf("%x\n", sum.Sum(nil))
}

// Watch tells of volumes that come and go.
func ExampleClient_Watch() {
	c, err := hostlib.New(hostlib.Config{DataDir: "/var/lib/sandbar/host"})
	if err != nil {
		log.Fatal(err)
	}
	defer c.Close()
	err = c.Watch(context.Background(), func(e hostlib.AssignmentEvent) error {
		fmt.Println(e.Change, e.Assignment.Name)
		return nil
	})
	if err != nil {
		log.Fatal(err)
	}
}
