"""Templates of domains: what they may say, read into a guest's own terms."""

from dataclasses import replace

import pytest

from mirage_hooks.boot import template
from mirage_hooks.boot.errors import ConfigError
from mirage_hooks.boot.template import Bound
from practice import BAKED_XL_CONF_IN

# As `mirage configure` writes it.
XL_IN = """\
name = '@NAME@'
kernel = '@KERNEL@'
type = 'pvh'
memory = @MEMORY@
on_crash = 'preserve'

disk = [ 'format=raw, vdev=xvdb, access=rw, target=@BLOCK:fat1.img@',
]
# if your system uses openvswitch then either edit /etc/xen/xl.conf
vif = [ 'bridge=@NETWORK:service@' ]
"""
BOUND = Bound({"xenbr0": "public"}, {"/dev/vg/tls": "certificates"})


def table(text: str) -> dict[str, object]:
    return template.read(text, "xl.conf.in", "mort.io", BOUND)


def refusal(text: str) -> ConfigError:
    with pytest.raises(ConfigError) as caught:
        table(text)
    return caught.value


def test_the_template_of_a_site_gives_memory_and_a_network() -> None:
    assert table(BAKED_XL_CONF_IN) == {
        "memory": 256,
        "network": {"net0": {"network": "public", "baked": True}},
    }


def test_the_template_that_mirage_generates_gives_type_and_block_devices_too() -> None:
    assert table(XL_IN) == {
        "memory": 256,
        "network": {"net0": {"network": "service", "baked": True}},
        "block": {"xvdb": {"volume": "fat1.img", "readonly": False}},
        "domain": {"type": "pvh"},
    }


@pytest.mark.parametrize("name", ["fat1", "fat1.img"])
def test_a_block_device_that_lies_beside_the_image_is_a_disk_image(name: str) -> None:
    disk = f"disk = [ 'format=raw, vdev=xvda, access=rw, target=@BLOCK:{name}@' ]"
    path = "xen/{latest}/fat1.img.bz2"
    bound = replace(BOUND, disks={"fat1": path, "fat1.img": path})
    told = template.read(disk, "www.xl.in", "www", bound)
    assert told == {"block": {"xvda": {"image": path}}}


def test_a_volume_of_the_hosts_goes_before_a_disk_image_of_its_name() -> None:
    disk = "disk = [ 'vdev=xvda, target=@BLOCK:certificates@' ]"
    bound = replace(BOUND, disks={"certificates": "certificates.img"})
    told = template.read(disk, "www.xl.in", "www", bound)
    assert told == {"block": {"xvda": {"volume": "certificates", "readonly": False}}}


def test_a_name_of_its_own_is_that_of_the_domain() -> None:
    assert table("name = 'decks'") == {"domain": {"name": "decks"}}


def test_the_builder_of_old_templates_is_a_type() -> None:
    assert table("builder = 'linux'; vcpus = 2") == {"domain": {"type": "pv", "vcpus": 2}}


def test_arguments_without_dashes_are_kept_in_that_form() -> None:
    assert table('extra = "ipv4=10.0.0.3/24 ipv4-gateway=10.0.0.1"') == {
        "args": ["--ipv4=10.0.0.3/24", "--ipv4-gateway=10.0.0.1"],
        "domain": {"arguments": "bare"},
    }


def test_arguments_with_dashes_are_kept_as_they_are() -> None:
    assert table('extra = "--ipv4=10.0.0.3/24"') == {
        "args": ["--ipv4=10.0.0.3/24"],
        "domain": {"arguments": "dashed"},
    }


@pytest.mark.parametrize(
    ("extra", "args", "form"),
    [
        ("""'--hello="a b" -v'""", ["--hello=a b", "-v"], "dashed"),
        (r"""'--hello=a\\ "b'""", ["--hello=a b"], "dashed"),
        ("""'hello="a b"'""", ["--hello=a b"], "bare"),
        ("""'"hello=a b" x=1'""", ["--hello=a b", "--x=1"], "bare"),
    ],
)
def test_arguments_are_taken_apart_as_mirageos_does(extra: str, args: list[str], form: str) -> None:
    assert table(f"extra={extra}") == {"args": args, "domain": {"arguments": form}}


@pytest.mark.parametrize("extra", ["''", "' '", "'\"\"'"])
def test_no_arguments_have_no_form(extra: str) -> None:
    assert table(f"extra={extra}") == {}


@pytest.mark.parametrize(
    "disk",
    [
        "phy:/dev/vg/tls,xvdb,r",
        "/dev/vg/tls,raw,xvdb,ro",
        "/dev/vg/tls,,xvdb,r",
        "format=raw, vdev=xvdb, access=ro, target=/dev/vg/tls",
    ],
)
def test_a_disk_of_the_hosts_is_a_volume(disk: str) -> None:
    assert table(f"disk = [ '{disk}' ]") == {
        "block": {"xvdb": {"volume": "certificates", "readonly": True}}
    }


def test_a_mac_is_kept() -> None:
    assert table("vif = ['mac=02:00:00:00:00:01, bridge=xenbr0']") == {
        "network": {"net0": {"network": "public", "baked": True, "mac": "02:00:00:00:00:01"}}
    }


def test_a_bridge_that_is_bound_to_no_network_stands_for_one_of_its_name() -> None:
    assert table("vif = ['bridge=br7']") == {"network": {"net0": {"network": "br7", "baked": True}}}


@pytest.mark.parametrize(
    ("text", "line", "what"),
    [
        ("name='a'\nramdisk='/boot/initrd'", 2, "ramdisk is no setting"),
        ("name='a'\n\n@TLS@", 3, "@TLS@ is no placeholder"),
        ("name='@SITE@'", 1, "@SITE@ is no placeholder"),
        ("extra='@BLOCK:x@'", 1, "@BLOCK:x@ is no placeholder"),
        ("extra='a=b\\\\'", 1, "extra: a backslash ends it"),
        ("kernel='/boot/vmlinuz'", 1, "kernel has to be '@KERNEL@'"),
        ("memory='lots'", 1, "memory 'lots' is no number"),
        ("memory=['1']", 1, "memory is no list"),
        ("vif='bridge=xenbr0'", 1, "vif is a list"),
        ("vif=['script=/tmp/evil']", 1, "the host says which script"),
        ("vif=['bridge=xenbr0,ip=10.0.0.1']", 1, "'ip=10.0.0.1' is nothing"),
        ("disk=['phy:/dev/sda,xvda,w']", 1, "/dev/sda is no volume of this host"),
        ("disk=['/dev/vg/tls,qcow2,xvda,w']", 1, "format 'qcow2'"),
        ("disk=['/dev/vg/tls']", 1, "names no target, or no vdev"),
        ("disk=['/dev/vg/tls,raw,xvda,x']", 1, "'x' is not known here"),
        ("disk=['script=/tmp/evil,target=a']", 1, "'script=/tmp/evil' is nothing"),
        ("type='qemu'", 1, "'qemu' is not known here"),
        ("on_crash='explode'", 1, "'explode' is not known here"),
        ("on_start='destroy'", 1, "on_start is no setting"),
        ("name='a'\nname='b'", 2, "name is given more than once"),
        ("name 'a'", 1, "name is followed by no '='"),
        ("name='a' 'b'", 1, "\"'b'\" is one too many"),
        ("name=", 1, "'the end' is no value"),
        ("vif=['a'\n'b']", 2, "a list is not closed"),
        ("name='a\nb'", 1, "is not understood"),
        ("$(reboot)", 1, "is not understood"),
    ],
)
def test_what_it_may_not_say_is_refused_with_its_line(text: str, line: int, what: str) -> None:
    message = refusal(text).message
    assert message.startswith(f"xl.conf.in: line {line}: ")
    assert what in message
