"use strict";(()=>{window.Payroc?.Gateway?.init?.();})();
