package cli

import (
	"context"
	"fmt"

	"github.com/spf13/cobra"

	pb "github.com/sandbar-san/sandbar/api/gen/sandbar/v1"
	"github.com/sandbar-san/sandbar/api/gen/sandbar/v1/sandbarv1connect"
	"github.com/sandbar-san/sandbar/cmd/sandbar/internal/output"
	"github.com/sandbar-san/sandbar/san"
)

type volumeClient = sandbarv1connect.VolumeServiceClient

// pageSize is how many rows one call of a list asks for.
const pageSize = 500

func (a *App) volumeCommand() *cobra.Command {
	return noun("volume", "Make volumes and give them to hosts",
		a.volumeCreate(), a.volumeList(), a.volumeShow(), a.volumeGrow(), a.volumeAssign(), a.volumeUnassign(),
		a.volumeDelete(), a.volumeURL(), a.volumeCredentials(), a.volumeStats())
}

func (a *App) volumeCreate() *cobra.Command {
	var size, host string
	var copies, block uint32
	var labels map[string]string
	c := a.verb("create NAME --size SIZE", "Make a volume and, with --host, assign it", takes("NAME"),
		func(ctx context.Context, s *session, args []string) error {
			bytes, err := san.ParseSize(size)
			if err != nil {
				return err
			}
			resp, err := ask(ctx, s, s.api.Volumes, volumeClient.CreateVolume, &pb.CreateVolumeRequest{
				RequestId: s.requestID, Name: args[0], SizeBytes: bytes, BlockSizeBytes: block,
				HostId: host, Copies: copies, Labels: labels,
			})
			if err != nil {
				return err
			}
			vol := resp.Volume
			if s.wait {
				if vol, err = s.awaitVolume(ctx, vol, madeAndAssigned(host)); err != nil {
					return err
				}
			}
			return s.out.Print(vol, func(p *output.Page) { drawVolume(p, vol) })
		})
	fs := c.Flags()
	fs.StringVar(&size, "size", "", "its size, like 80MiB or 2GiB")
	fs.StringVar(&host, "host", "", "host to assign it to")
	fs.Uint32Var(&copies, "copies", 1, "on how many units to keep it")
	fs.Uint32Var(&block, "block-size", san.DefaultBlockSizeBytes, "its block size in bytes, 512 or 4096")
	fs.StringToStringVar(&labels, "label", nil, "KEY=VALUE to find it by; repeatable")
	require(c, "size")
	c.Long = c.Short + ".\n\nWith --wait the command ends once the volume is Ready or, with --host, Assigned."
	return c
}

// require marks flags without which a command means nothing.
func require(c *cobra.Command, flags ...string) {
	for _, f := range flags {
		// It fails only for a flag that was not declared, which every test of the command would show.
		_ = c.MarkFlagRequired(f)
	}
}

func (a *App) volumeList() *cobra.Command {
	var host string
	c := a.verb("list", "List all volumes, by name", takes(), func(ctx context.Context, s *session, _ []string) error {
		all := &pb.ListVolumesResponse{}
		err := eachPage(func(token string) (string, error) {
			page, err := ask(ctx, s, s.api.Volumes, volumeClient.ListVolumes, &pb.ListVolumesRequest{PageSize: pageSize, PageToken: token, HostId: host})
			all.Volumes = append(all.Volumes, page.GetVolumes()...)
			return page.GetNextPageToken(), err
		})
		if err != nil {
			return err
		}
		return s.out.Print(all, func(p *output.Page) { drawVolumes(p, all.Volumes) })
	})
	c.Flags().StringVar(&host, "host", "", "only those assigned to this host")
	return c
}

// eachPage calls ask with one page token after the other, the first empty, until it returns none.
func eachPage(ask func(token string) (next string, err error)) error {
	for token := ""; ; {
		next, err := ask(token)
		if err != nil || next == "" || next == token {
			return err
		}
		token = next
	}
}

func (a *App) volumeShow() *cobra.Command {
	return a.verb("show VOLUME", "Show a volume, by name or id", takes("VOLUME"), func(ctx context.Context, s *session, args []string) error {
		vol, err := s.volume(ctx, args[0])
		if err != nil {
			return err
		}
		return s.out.Print(vol, func(p *output.Page) { drawVolume(p, vol) })
	})
}

// volume reads a volume by name or id.
func (s *session) volume(ctx context.Context, name string) (*pb.Volume, error) {
	resp, err := ask(ctx, s, s.api.Volumes, volumeClient.GetVolume, &pb.GetVolumeRequest{Volume: name})
	if err != nil {
		return nil, err
	}
	return resp.Volume, nil
}

func (a *App) volumeGrow() *cobra.Command {
	var size string
	c := a.verb("grow VOLUME --size SIZE", "Make a volume larger, also while hosts use it", takes("VOLUME"),
		func(ctx context.Context, s *session, args []string) error {
			bytes, err := san.ParseSize(size)
			if err != nil {
				return err
			}
			resp, err := ask(ctx, s, s.api.Volumes, volumeClient.GrowVolume, &pb.GrowVolumeRequest{RequestId: s.requestID, Volume: args[0], SizeBytes: bytes})
			if err != nil {
				return err
			}
			vol := resp.Volume
			if s.wait {
				if vol, err = s.awaitVolume(ctx, vol, hasSize(bytes)); err != nil {
					return err
				}
			}
			return s.out.Print(vol, func(p *output.Page) { drawVolume(p, vol) })
		})
	c.Flags().StringVar(&size, "size", "", "the size that it shall have in all, like 80MiB or 2GiB; any multiple of its block size")
	require(c, "size")
	c.Long = c.Short + `.

Hosts that have sessions with it are told that its capacity has changed; Linux looks at it anew after
'iscsiadm -m session -R'. With --wait the command ends once its units have the new size. A volume never shrinks.`
	return c
}

func (a *App) volumeAssign() *cobra.Command {
	var host string
	c := a.verb("assign VOLUME --host HOST", "Give a volume to a host", takes("VOLUME"), func(ctx context.Context, s *session, args []string) error {
		resp, err := ask(ctx, s, s.api.Volumes, volumeClient.AssignVolume,
			&pb.AssignVolumeRequest{RequestId: s.requestID, Volume: args[0], HostId: host})
		if err != nil {
			return err
		}
		vol := resp.Volume
		if s.wait {
			if vol, err = s.awaitVolume(ctx, vol, madeAndAssigned(host)); err != nil {
				return err
			}
		}
		return s.out.Print(vol, func(p *output.Page) { drawVolume(p, vol) })
	})
	c.Flags().StringVar(&host, "host", "", "the host")
	require(c, "host")
	c.Long = c.Short + ".\n\nWith --wait the command ends once the assignment is Assigned."
	return c
}

func (a *App) volumeUnassign() *cobra.Command {
	var host string
	c := a.verb("unassign VOLUME --host HOST", "Take a volume away from a host", takes("VOLUME"), func(ctx context.Context, s *session, args []string) error {
		resp, err := ask(ctx, s, s.api.Volumes, volumeClient.UnassignVolume,
			&pb.UnassignVolumeRequest{RequestId: s.requestID, Volume: args[0], HostId: host})
		if err != nil {
			return err
		}
		vol := resp.Volume
		if s.wait {
			if vol, err = s.awaitVolume(ctx, vol, released(vol, host)); err != nil {
				return err
			}
		}
		return s.out.Print(vol, func(p *output.Page) { drawVolume(p, vol) })
	})
	c.Flags().StringVar(&host, "host", "", "the host")
	require(c, "host")
	c.Long = c.Short + ".\n\nIts units close the host's sessions. With --wait the command ends once they have."
	return c
}

func (a *App) volumeDelete() *cobra.Command {
	c := a.verb("delete VOLUME", "Delete a volume that no host has", takes("VOLUME"), func(ctx context.Context, s *session, args []string) error {
		resp, err := ask(ctx, s, s.api.Volumes, volumeClient.DeleteVolume, &pb.DeleteVolumeRequest{RequestId: s.requestID, Volume: args[0]})
		if err != nil {
			return err
		}
		vol, said := resp.Volume, "is being deleted"
		if s.wait {
			if err := s.awaitGone(ctx, vol); err != nil {
				return err
			}
			said = "is deleted"
		}
		return s.out.Print(vol, func(p *output.Page) { p.Line("volume %s %s", args[0], said) })
	})
	c.Long = c.Short + ".\n\nWith --wait the command ends once its room is free again."
	return c
}

func (a *App) volumeCredentials() *cobra.Command {
	var host string
	c := a.verb("credentials VOLUME --host HOST", "Reveal the CHAP name and secret of an assignment (audited)", takes("VOLUME"),
		func(ctx context.Context, s *session, args []string) error {
			cred, err := s.credentials(ctx, args[0], host)
			if err != nil {
				return err
			}
			return s.out.Print(cred, func(p *output.Page) {
				p.Fields("CHAP user", cred.ChapUser, "CHAP secret", cred.ChapSecret)
			})
		})
	c.Flags().StringVar(&host, "host", "", "the host")
	require(c, "host")
	return c
}

func (s *session) credentials(ctx context.Context, volume, host string) (*pb.GetCredentialsResponse, error) {
	return ask(ctx, s, s.api.Volumes, volumeClient.GetCredentials, &pb.GetCredentialsRequest{Volume: volume, HostId: host})
}

func (a *App) volumeURL() *cobra.Command {
	var host string
	c := a.verb("url VOLUME --host HOST", "Print an iscsi:// URL with credentials for each path (audited)", takes("VOLUME"),
		func(ctx context.Context, s *session, args []string) error {
			urls, err := s.urls(ctx, args[0], host)
			if err != nil {
				return err
			}
			return s.out.Value(map[string][]string{"urls": urls}, func(p *output.Page) {
				for _, u := range urls {
					p.Line("%s", u)
				}
			})
		})
	c.Flags().StringVar(&host, "host", "", "the host that logs in")
	require(c, "host")
	return c
}

// urls are what libiscsi and qemu take: iscsi://user%secret@portal/target/lun.
func (s *session) urls(ctx context.Context, volume, host string) ([]string, error) {
	vol, err := s.volume(ctx, volume)
	if err != nil {
		return nil, err
	}
	cred, err := s.credentials(ctx, vol.Id, host)
	if err != nil {
		return nil, err
	}
	var urls []string
	for _, path := range assignmentOf(vol, host).GetPaths() {
		if path.Portal != "" {
			urls = append(urls, fmt.Sprintf("iscsi://%s%%%s@%s/%s/%d", cred.ChapUser, cred.ChapSecret, path.Portal, path.TargetIqn, path.Lun))
		}
	}
	if len(urls) == 0 {
		return nil, san.Errorf(san.KindUnavailable, "volume %s has no path to host %s now; 'sandbar volume show %s' says why", vol.Name, host, vol.Name)
	}
	return urls, nil
}

// assignmentOf finds host's assignment, nil if it has none.
func assignmentOf(vol *pb.Volume, host string) *pb.Assignment {
	for _, a := range vol.GetAssignments() {
		if a.HostId == host {
			return a
		}
	}
	return nil
}
