(* Serves the pages over HTTPS, and leads there whoever asks over HTTP. *)
open Lwt.Infix

let https_port =
  let doc = Cmdliner.Arg.info ~doc:"TCP port of HTTPS." [ "https-port" ] in
  Mirage_runtime.register_arg Cmdliner.Arg.(value & opt int 443 doc)

module Make
    (Store : Mirage_kv.RO)
    (Certificates : Mirage_kv.RO)
    (Server : Cohttp_mirage.Server.S) =
struct
  module Pages = Unikernel.Pages (Store) (Server)
  module X509 = Tls_mirage.X509 (Certificates)

  let redirect port uri =
    let uri = Uri.with_scheme uri (Some "https") in
    let port = if port = 443 then None else Some port in
    Server.respond_redirect ~uri:(Uri.with_port uri port) ()

  (* server.pem has the certificate and what it was issued by; server.key is its key. *)
  let configuration certificates =
    X509.certificate certificates `Default >>= fun own ->
    match Tls.Config.server ~certificates:(`Single own) () with
    | Ok configuration -> Lwt.return configuration
    | Error (`Msg message) -> Lwt.fail_with message

  let start store certificates listen =
    configuration certificates >>= fun configuration ->
    let http = Unikernel.http_port () and https = https_port () in
    Logs.info (fun log -> log "HTTPS on port %d, HTTP on port %d" https http);
    Lwt.join
      [
        listen
          (`TLS (configuration, `TCP https))
          (Pages.server (Pages.answer store));
        listen (`TCP http) (Pages.server (redirect https));
      ]
end
